"""F48, F49, F53, F66: settings that cannot be meant, or cannot work, and a property of all."""

import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archsmith.cli.messages import explain
from archsmith.errors import ConfigError, Interrupted
from archsmith.result.retrain import Retraining
from strategies.strategy import Strategy

SMALL = [
    "data=synthetic", "data.size=48", "data.image_size=8", "data.classes=3", "task=all",
    "space.layers=3", "space.nodes=1", "space.channels=4", "search.epochs=1",
    "search.batch_size=12", "retrain=quick", "retrain.layers=3", "retrain.channels=4",
    "runtime.threads=1", "hydra.run.dir=d",
]  # fmt: skip


@pytest.fixture
def prepared(archsmith, monkeypatch):
    """Runs the command line up to the first phase: exit code 75 stands for all is well."""

    def stop(job: object) -> None:
        raise Interrupted("prepared")

    monkeypatch.setattr("archsmith.phases.run.Run", stop)
    return lambda *overrides: archsmith(*SMALL, *overrides)


WRONG = {
    "search=3": "search: expected settings in {}",
    "strategy.alpha_lr_scale=nan": (
        "strategy.alpha_lr_scale: expected a finite number above 0, found nan"
    ),
    "search.seconds=[a,b]": "search.seconds: expected a number above 0 or null",
    "strategy.alpha_lr_scale=true": "strategy.alpha_lr_scale: expected a number above 0",
    "search.batch_size=1": "batch_size: 1 for 'train', expected at least 2",
    "search.micro_batches=0": "search.micro_batches: expected a whole number of at least 1",
    "checkpoint=3": "checkpoint: expected settings in {}",
    "checkpoint.every_seconds=-1": "checkpoint.every_seconds: expected a number of at least 0",
    "export=null": "export: expected settings in {}",
    "export.formats=onnx": "export.formats: expected a list",
    "export.formats=[7]": "export.formats: expected a list",
    "device=3": "device: expected auto, cpu, cuda or cuda:N, found 3",
    "device=null": "device: expected auto, cpu, cuda or cuda:N",
    "seed=99999999999999999999": "seed: expected a whole number of at least 0",
    "runtime.threads=99999999999999999999": "",
    "device=tpu": "device: expected auto, cpu, cuda or cuda:N",
    "data.size=2": "data.size: 2 images for 3 classes",
    "data.size=x": "data.size: expected a whole number of at least 1",
    "data.split=null": "data.split",
    "data.noise=null": "data.noise: expected a number of at least 0, found null",
    "data.noise=[1]": "data.noise: expected a number of at least 0, found [1]",
    "space=nan": "space=nan: expected names of choices",
    "data=[0.1,0.2]": "data=[0.1,0.2]: expected names of choices",
    "retrain=[[1]]": "retrain=[[1]]: expected names of choices",
    "data.augment=3": "data.augment: expected settings in {}",
    "data.batch=3": "unknown setting 'data.batch'",
    "space.candidates=5": "space.candidates: expected a list",
    "space.candidates=[none]": "has only 'none'",
    "space.candidates=[]": "space.candidates: expected a list of names",
    "space.nodes=1000000": "space.nodes: expected a whole number of at least 1 and at most 64",
    "space.stem_multiplier=0": "space.stem_multiplier: expected a whole number of at least 1",
    "strategy.relaxation=gumbel": "a choice is written strategy/relaxation=...",
    "strategy.topology=1.5": "strategy.topology: expected settings in {} or",
    "strategy.clip=x": "strategy.clip: expected a number above 0 or null",
    "strategy.warmup=null": "strategy.warmup: expected a number of at least 0 and below 1, found",
    "strategy.alpha_optimizer.betas=[]": "strategy.alpha_optimizer.betas: expected a list of 2",
    "strategy.weight_optimizer.lr=[1]": "strategy.weight_optimizer.lr: expected a finite number",
    "strategy.weight_optimizer.nesterov=null": "nesterov: expected true or false",
    "strategy.alpha_optimizer.lr=-1": "strategy.alpha_optimizer: Invalid learning rate: -1",
    "strategy.weight_optimizer.momentum=-1": "strategy.weight_optimizer: Invalid momentum",
    "retrain.cutout=100": "retrain.cutout: 100 could blank a whole 8x8 image",
    "retrain.stem=foo": "retrain.stem: expected one of small, imagenet, found 'foo'",
    "retrain.layers=1": "retrain.layers: expected a whole number of at least 3",
    "retrain.precision=float16": "retrain.precision: expected one of float32, bfloat16",
    "resume=yes": "resume: expected one of auto, never, force, found 'yes'",
    "architecture=5": "architecture: expected the name of a file or null, found 5",
}


@pytest.mark.slow
@pytest.mark.parametrize("override", WRONG)
def test_f48_a_wrong_setting_is_refused_by_its_key(prepared, override: str):
    said = prepared(override)
    assert said.code == 2
    assert WRONG[override] in said.err
    assert "Traceback" not in said.err


CONFLICTS = {
    "channels_last_on_a_cpu": (
        ["runtime.channels_last=true", "device=cpu"],
        "runtime.channels_last: needs CUDA, found cpu",
    ),
    "f49_partial_channels": (
        ["strategy=pcdarts", "strategy.mixed_op.k=3"],
        "4 channels cannot be split into k=3",
    ),
    "f49_second_order_drawn_gates": (
        ["strategy=annealed", "strategy/update=second_order",
         "strategy.update.hessian=finite_difference", "task=search"],
        "finite_difference compares passes of equal gates",
    ),
    "f49_warmup_leaves_no_epoch": (
        ["strategy.warmup=0.9", "task=search"],
        "leaves no epoch in which alphas move",
    ),
    "f49_one_layer_too_few": (["space=nasbench201"], "space.layers: expected a whole number"),
    "f66_floor_below_the_smallest_network": (
        ["strategy=goldnas", "strategy.stopping.floor=0.01", "task=search",
         "space.candidates=[sep_conv_3x3,dil_conv_3x3]"],
        "cannot be reached, every node keeps an input; set it to",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFLICTS)
def test_f49_f66_conflicts_are_refused_with_the_reason(archsmith, name: str):
    overrides, message = CONFLICTS[name]
    said = archsmith(*SMALL, *overrides)
    assert said.code == 2, said.err
    assert message in said.err
    assert not list(Path("d").glob("checkpoints/*.pt"))


def test_f53_a_device_that_is_not_there_is_no_silent_fallback(prepared):
    said = prepared("device=cuda:99")
    assert said.code == 2
    assert "set device=cpu or device=auto" in said.err


VALUES = st.sampled_from(
    ["0", "1", "2", "3", "4", "-1", "0.5", "1.5", "1e30", "nan", "inf", "x", "null", "true", "[]",
     "[1]", "[a,b]", "{}", "{a: 1}", "''", "99999999999999999999"]
)  # fmt: skip
KEYS = st.sampled_from(
    ["search.epochs", "search.batch_size", "strategy.alpha_lr_scale", "search.micro_batches",
     "checkpoint.every_seconds", "data.size", "data.classes", "data.channels", "data.image_size",
     "data.noise", "data.limit", "data.split", "data.select", "data.augment", "data.augment.crop",
     "data.augment.flip", "data.seed", "space.layers", "space.nodes", "space.channels",
     "space.candidates", "space.stem", "space.share_alphas", "strategy.warmup", "strategy.clip",
     "strategy.min_lr", "strategy.alpha_init", "strategy.alpha_optimizer.lr",
     "strategy.alpha_optimizer.betas", "strategy.weight_optimizer.lr",
     "strategy.weight_optimizer.nesterov", "strategy.relaxation.start", "retrain.layers",
     "retrain.stem", "retrain.batch_size", "retrain.lr", "retrain.cutout", "retrain.ema",
     "retrain.auxiliary_weight", "runtime.threads", "runtime.deterministic", "seed", "device",
     "resume", "architecture", "weights", "export.formats", "benchmark.table", "strategy",
     "space", "data", "nothing.at.all"]
)  # fmt: skip


NAMES_A_KEY = re.compile(r"\b(search|data|space|strategy|retrain|runtime|checkpoint|export)\.\w")


@pytest.fixture
def two_steps(archsmith, monkeypatch):
    """Runs the command line for two steps of the search and two of the retraining."""

    def stopping(patch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        real, taken = getattr(owner, name), []

        def step(self, *args, **more):
            taken.append(real(self, *args, **more))
            if len(taken) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return taken[-1]

        patch.setattr(owner, name, step)

    def call(*overrides: str):
        shutil.rmtree("d", ignore_errors=True)
        with monkeypatch.context() as patch:
            for owner, name in ((Strategy, "step"), (Retraining, "train_step")):
                stopping(patch, owner, name)
            return archsmith(*SMALL, "export.formats=[genotype]", *overrides)

    return call


def runs_or_is_refused(two_steps, changes: dict[str, str]) -> None:
    """75: two steps were made; 0: all was done before. 3: images that do not suffice. 4: a step was
    made, and its numbers are not finite."""
    said = two_steps(*[f"{key}={value}" for key, value in changes.items()])
    assert said.code in (0, 2, 3, 4, 75), (changes, said.err)
    assert "Traceback" not in said.err
    if said.code in (2, 3, 4):
        (line,) = (one for one in said.err.splitlines() if one.startswith("archsmith: "))
        named = any(re.search(rf"\b{re.escape(key.split('.')[-1])}\b", line) for key in changes)
        assert named or NAMES_A_KEY.search(line), (changes, line)


LENIENT = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.mark.slow
@settings(max_examples=4, deadline=None, suppress_health_check=LENIENT)
@given(changes=st.dictionaries(KEYS, VALUES, min_size=1, max_size=2))
def test_f48_any_configuration_runs_two_steps_or_is_refused_by_key(two_steps, changes: dict):
    runs_or_is_refused(two_steps, changes)


@pytest.mark.slow
@settings(deadline=None, suppress_health_check=LENIENT)
@given(changes=st.dictionaries(KEYS, VALUES, min_size=1, max_size=3))
def test_f48_many_configurations(two_steps, changes: dict):
    runs_or_is_refused(two_steps, changes)


@pytest.mark.slow
@pytest.mark.parametrize("override", ["strategy.clip=null", "data.image_size=[8,12]"])
def test_null_and_lists_pass_where_the_annotation_admits_them(prepared, override: str):
    assert prepared(override).code == 75


def test_a_line_that_names_no_setting_gets_all_that_were_given(monkeypatch):
    monkeypatch.setattr("sys.argv", ["run.py", "-m", "search.seconds=x", "seed=1"])
    for said, line in (
        ("'>' not supported", "'>' not supported; found in one of: search.seconds=x seed=1"),
        ("space.layers: expected 3", "space.layers: expected 3"),
        ("unknown seed", "unknown seed"),
    ):
        assert explain(ConfigError(said), Path("conf"), list, composed=True) == (2, line)


def test_an_operation_that_is_never_deterministic_names_the_setting():
    said = (
        "nll_loss2d_forward_out_cuda_template does not have a deterministic implementation, but "
        "you set 'torch.use_deterministic_algorithms(True)'. You can turn off determinism just for"
    )
    code, line = explain(RuntimeError(said), Path("conf"), list, composed=True)
    assert code == 2
    assert line == (
        "runtime.deterministic: nll_loss2d_forward_out_cuda_template is never deterministic on "
        "this device; set runtime.deterministic=false, or device=cpu"
    )


def test_configuration_errors_come_before_any_file(archsmith):
    archsmith(*SMALL, "strategy.clip=x")
    assert not Path("d/results.json").exists()
    assert ConfigError.exit_code == 2
