"""With synchronised batch norms two processes on the CPU (gloo) do what one does at the same global
batch; with local ones, passes apart are joint passes. One that is lost ends all.

Steps are compared in float64, where only the order of sums differs: at 1e-8. Whole runs are in
float32, a few epochs: at 1e-4 (second order: 1e-3), with equal architectures.
"""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.toys import image_tree
from helpers import ROOT, RUN
from hydra.core.global_hydra import GlobalHydra
from test_every_config import composed, make, still
from torch import Tensor, nn

from archsmith.cli import main as run
from archsmith.cli.preflight import some_architecture
from archsmith.errors import OutOfMemory
from archsmith.parallel import distributed
from archsmith.parallel.averaged import averaged
from archsmith.parallel.data_parallel import GlobalChosenOps, GlobalNorm, across_processes
from archsmith.parallel.portions import Portion
from archsmith.parallel.processes import Processes
from archsmith.result import retrain
from archsmith.train import memory
from archsmith.train.evaluate import evaluate, restore_statistics
from search_spaces.darts import CANDIDATES, darts
from strategies.strategy import Strategy
from supernets.final import ChosenOps
from supernets.forms import use_form
from supernets.native.build import library
from supernets.network import CellNetwork, final_network, supernet

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["run", "archsmith.cli.preflight", "archsmith.phases.pipeline"])
STRATEGIES = ["darts", "darts_second_order", "pcdarts", "goldnas"]
SOME = {"fused": ["darts_second_order", "snas"], "reference": ["pcdarts"]}
EVERY = {
    "fused": ["darts", "darts_second_order", "pcdarts", "goldnas", "gdas", "drnas", "sddarts"],
    "reference": ["darts", "darts_second_order", "goldnas", "annealed"],
}
TEACHER = "darts +strategy/losses=ema_teacher strategy.losses.ema_teacher.start=0"
APART = {
    "fused": ["pcdarts", "drnas", "goldnas", "ddarts"],  # the last two jointly in any case
    "reference": ["beta_darts", "fairdarts", "rarts", "rome", "sdarts_adv", "sddarts", TEACHER],
}
TINY = [
    "device=cpu", "data=synthetic", "data.size=96", "data.image_size=8", "data.classes=3",
    "data.augment.crop=1", "data.augment.flip=true", "strategy.warmup=0",
    "space.layers=3", "space.nodes=1", "space.channels=4",
    "space.candidates=[none,skip_connect,max_pool_3x3,sep_conv_3x3]",
    "search.epochs=2", "search.batch_size=15", "runtime=fused", "runtime.threads=1",
    "runtime.sync_batch_norm=true",
    "retrain.layers=3", "retrain.channels=4", "retrain.epochs=2", "retrain.batch_size=19",
    "retrain.drop_path=0.3", "retrain.ema=0.9", "export.formats=[genotype]",
]  # fmt: skip


POISON = 0


# -- processes
# ------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def ranked(rank: int, size: int, port: int, target: Callable[..., None], *args: Any) -> None:
    """What a launcher does in each process."""
    torch.set_num_threads(1)
    if size > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    target(rank, *args)


def together(size: int, target: Callable[..., None], *args: Any, seconds: float = 300) -> list[int]:
    """The exit codes of so many processes."""
    port = free_port()
    processes = [
        SERVER.Process(target=ranked, args=(r, size, port, target, *args)) for r in range(size)
    ]
    for process in processes:
        process.start()
    over = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, over - time.monotonic()))
    late = [process for process in processes if process.exitcode is None]
    for process in late:
        process.kill()
        process.join()
    assert not late, f"{len(late)} of {size} processes did not end"
    return [process.exitcode for process in processes]


# -- steps, in float64
# ------------------------------------------------------------------------------------------------


def batches(device: torch.device, *sizes: int) -> list[tuple[Tensor, Tensor]]:
    source = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(size, 3, 8, 8, generator=source).to(device),
            torch.randint(3, (size,), generator=source).to(device),
        )
        for size in sizes
    ]


def toy_space(**settings: Any) -> Any:
    names = ["none", "skip_connect", "max_pool_3x3", "sep_conv_3x3"]
    shapes: dict[str, Any] = dict(layers=3, nodes=1, channels=4, input_shape=(3, 8, 8), classes=3)
    return darts(candidates=[n for n in CANDIDATES if n in names], **shapes | settings)


def search_steps(name: str, device: torch.device, form: str, how: str) -> dict[str, Tensor]:
    """All tensors after steps on batches of 8, 7, 4 and 1 images, and what they measured."""
    torch.manual_seed(0)
    space = toy_space()
    name, *more = name.split()
    strategy = make(composed(*still(name), "strategy.clip=0.5", *more).strategy, space=space)
    net = supernet(space, strategy.mixed_op).to(device)
    strategy.setup(net, device)
    use_form(net, form, device)
    across_processes(net).train()
    if strategy.averages and how == "apart":
        strategy.gradients = averaged()
    metrics: dict[str, Tensor] = {}
    for i, batch in enumerate(batches(device, 8, 7, 4, 1)):
        val = batches(device, 4 + len(batch[0]))[0]
        found = strategy.step(net, batch, val, progress=0.1, move_alphas=True)
        metrics |= {f"{i}.{key}": value for key, value in found.items()}
    mixture = strategy.mixture(noise=False)
    restore_statistics(net, batches(device, 6, 5), mixture)
    measured = evaluate(net, batches(device, 5, 1), mixture)
    metrics |= {key: torch.tensor(value) for key, value in measured.items()}
    return metrics | net.state_dict() | strategy.state_dict()["arch"]


def training_steps(device: torch.device, how: str) -> dict[str, Tensor]:
    """The same of a retraining with an auxiliary head, drop-path, a moving average and, with
    synchronised norms, parts."""
    torch.manual_seed(0)
    space = toy_space(layers=4)
    recipe = make(
        composed(
            "retrain.auxiliary_weight=0.4",
            "retrain.ema=0.9",
            f"retrain.micro_batches={1 + (how == 'synchronised')}",
        ).retrain
    )
    net = across_processes(
        final_network(space, some_architecture(space), auxiliary=True).to(device)
    )
    training = retrain.Retraining(net, batches(device, 7, 4), recipe)  # type: ignore[arg-type]
    if how == "apart":
        training.gradients = averaged()
    net.train()
    net.set_drop_path(0.4)
    losses = [training.train_step(batch)[1]["loss"] for batch in batches(device, 8, 7, 4, 2)]
    return net.state_dict() | {"losses": torch.stack(losses)} | {
        f"average.{key}": value for key, value in training.result().state_dict().items()
    }  # fmt: skip


def all_steps(rank: int, folder: Path, kind: str, stepped: dict[str, list[str]], how: str) -> None:
    """how: `synchronised` batch norms, or local ones and passes `apart` or `joint`."""
    GlobalHydra.instance().clear()
    device = torch.device(f"cuda:{rank}" if kind == "cuda" else kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.deterministic = True
    torch.set_default_dtype(torch.float64)
    try:
        distributed.start()
        distributed.sync_batch_norm = how == "synchronised"
        found = {
            f"{name}, {form}": search_steps(name, device, form, how)
            for form, names in stepped.items()
            for name in names
        }
        found["retrain"] = training_steps(device, how)
        torch.save(found, folder / f"{how}_{distributed.size()}_{rank}.pt")
        distributed.finish()
    finally:
        torch.set_default_dtype(torch.float32)
        distributed.sync_batch_norm = False


def check_steps(folder: Path, device: str, stepped: dict[str, list[str]], how: str) -> None:
    """Of two processes: with synchronised norms those of one, apart the joint ones."""
    if how == "apart":
        assert together(2, all_steps, folder, device, stepped, "joint") == [0, 0]
    else:
        all_steps(0, folder, device, stepped, how)
    assert together(2, all_steps, folder, device, stepped, how) == [0, 0]
    names = "joint_2_0" if how == "apart" else f"{how}_1_0", f"{how}_2_0", f"{how}_2_1"
    expected_of, first, second = (
        torch.load(folder / f"{name}.pt", map_location="cpu") for name in names
    )
    for name, tensors in expected_of.items():
        assert tensors.keys() == first[name].keys()
        for key, expected in tensors.items():
            assert torch.equal(first[name][key], second[name][key]), (name, key)
            within = 1e-6 if expected.dtype == torch.float32 else 1e-8  # accuracies are float32
            torch.testing.assert_close(
                first[name][key], expected, atol=within, rtol=within,
                msg=lambda said, where=(name, key): f"{where}: {said}",
            )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("stepped", [SOME, EVERY])
def test_steps_of_two_processes_are_those_of_one_and_the_same_on_both(
    stepped: dict[str, list[str]], tmp_path: Path
):
    check_steps(tmp_path, "cpu", stepped, "synchronised")


@pytest.mark.slow
def test_steps_apart_are_joint_ones_and_the_same_on_both(tmp_path: Path):
    """With local norms: means over images, for losses and updates that say so, also after batches
    that do not divide into equal shares."""
    check_steps(tmp_path, "cpu", APART, "apart")


def forms_agree(rank: int) -> None:
    """Joint passes in float32, in which the kernels run."""
    GlobalHydra.instance().clear()
    distributed.start()
    found = [search_steps("pcdarts", torch.device("cpu"), f, "joint") for f in ("fused", "native")]
    for name, expected in found[0].items():
        torch.testing.assert_close(found[1][name], expected, atol=1e-4, rtol=1e-4, msg=name)
    distributed.finish()


@pytest.mark.slow
@pytest.mark.skipif(library() is None, reason="not run: no compiler for the native form")
def test_joint_steps_of_two_processes_agree_in_the_native_form():
    assert together(2, forms_agree) == [0, 0]


@pytest.mark.gpu
@pytest.mark.parametrize(("how", "stepped"), [("synchronised", EVERY), ("apart", APART)])
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="not run: needs two CUDA devices")
def test_steps_of_two_processes_on_cuda(how: str, stepped: dict[str, list[str]], tmp_path: Path):
    check_steps(tmp_path, "cuda", stepped, how)


def test_portions_cover_a_batch_once(monkeypatch):
    def portion(total: int, rank: int) -> Portion:
        monkeypatch.setattr(distributed, "rank", lambda: rank)
        return Portion.mine(total)

    monkeypatch.setattr(distributed, "size", lambda: 4)
    portions = [portion(10, rank) for rank in range(4)]
    assert [(p.start, p.stop) for p in portions] == [(0, 3), (3, 6), (6, 8), (8, 10)]
    assert portion(3, 2) == (0, 3, 3, 4)


def test_a_network_keeps_its_class_parameters_and_names_across_processes(monkeypatch):
    space = toy_space()
    net = final_network(space, some_architecture(space))
    norm = nn.BatchNorm2d(4)
    net.extra = nn.ModuleList([norm, norm])
    net.set_drop_path(0.2)
    before, classes = net.state_dict(keep_vars=True), {type(m) for m in net.modules()}
    monkeypatch.setattr(distributed, "size", lambda: 2)
    monkeypatch.setattr(distributed, "sync_batch_norm", True)
    assert across_processes(net) is net
    after = net.state_dict(keep_vars=True)
    assert list(before) == list(after)
    assert all(before[name] is after[name] for name in before)
    assert type(net) is CellNetwork
    assert type(norm) is nn.BatchNorm2d
    replaced = {nn.BatchNorm2d: GlobalNorm, ChosenOps: GlobalChosenOps}
    assert {type(m) for m in net.modules()} == {replaced.get(kind, kind) for kind in classes}
    assert net.extra[0] is net.extra[1]
    assert {m.drop for m in net.modules() if isinstance(m, ChosenOps)} == {0.2}


def test_among_several_processes_memory_that_does_not_suffice_is_not_tried_again(monkeypatch):
    monkeypatch.setattr(memory, "size", lambda: 2)
    runs = []

    def fails() -> None:
        runs.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(OutOfMemory, match=r"one of 2 processes; set search\.micro_batches=2"):
        memory.sparing("search", fails, lambda: 2, torch.device("cpu"))
    assert runs == [1]


# -- runs
# ------------------------------------------------------------------------------------------------


def command(rank: int, folder: Path, overrides: list[str], act: dict[int, tuple[int, int]]) -> None:
    """`run.py ...`; `act` maps a rank to a step, and to the signal it sends itself there.

    `POISON` stands for a process whose numbers go wrong.
    """
    for number in (1, 2):
        where = os.open(f"{folder}.{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(where, number)
    GlobalHydra.instance().clear()
    run.composed.clear()
    made = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **more: Any) -> Any:
            nonlocal made
            trial = isinstance(args[0], retrain.Retraining) and not args[0].loader  # of preflight
            made += not trial
            if not trial and rank in act and made == act[rank][0]:
                if act[rank][1] == POISON:
                    next(args[1].parameters()).data.fill_(torch.nan)
                else:
                    os.kill(os.getpid(), act[rank][1])
            return real(*args, **more)

        return step

    Strategy.step = counted(Strategy.step)  # type: ignore[method-assign]
    retrain.Retraining.train_step = counted(retrain.Retraining.train_step)  # type: ignore[method-assign]
    tiny = TINY if "data=folder" not in overrides else [one for one in TINY if "data" not in one]
    given = sorted([*tiny, *overrides], key=lambda one: not one.startswith("-"))  # flags first
    sys.argv = [RUN, *given, f"hydra.run.dir={folder}"]
    try:
        run.main()
    except SystemExit as ending:
        os._exit(int(ending.code or 0))
    os._exit(0)


def runs(size: int, folder: Path, *overrides: str, act: Any = None, seconds: float = 300) -> Any:
    """Exit codes, and the lines of error of each process since it was last asked."""
    for rank in range(size):
        Path(f"{folder}.{rank}.txt").unlink(missing_ok=True)
    codes = together(size, command, folder, list(overrides), act or {}, seconds=seconds)
    texts = [Path(f"{folder}.{rank}.txt").read_text() for rank in range(size)]
    return codes, [
        [line for line in text.splitlines() if line.startswith("archsmith:")] for text in texts
    ]


def state(folder: Path, phase: str) -> dict[str, Tensor]:
    """Weights, statistics and alphas of the newest checkpoint."""
    newest = max((folder / "checkpoints").glob(f"{phase}_*.pt"))
    found = torch.load(newest, weights_only=True)["state"]
    return found["net"] | found.get("strategy", {}).get("arch", {})


def assert_same(folder: Path, expected: Path, *phases: str, within: float = 1e-4) -> None:
    """Equal architectures; tensors within the stated tolerance."""
    for phase in phases:
        there = state(expected, phase)
        for name, tensor in state(folder, phase).items():
            torch.testing.assert_close(tensor, there[name], atol=within, rtol=within)
    found = [sorted((one / "architectures").glob("*")) for one in (folder, expected)]
    assert [path.name for path in found[0]] == [path.name for path in found[1]]
    for ours, theirs in zip(*found, strict=True):
        assert ours.read_bytes() == theirs.read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of one process, from the search to the export."""
    folder = tmp_path_factory.mktemp("one") / "run"
    assert runs(1, folder)[0] == [0]
    return folder


@pytest.mark.slow
def test_a_run_of_two_processes_ends_as_one_does_and_leaves_one_folder(whole: Path, tmp_path: Path):
    assert runs(2, tmp_path / "two") == ([0, 0], [[], []])
    assert_same(tmp_path / "two", whole, "search", "retrain")
    names = [sorted(p.name for p in folder.iterdir()) for folder in (tmp_path / "two", whole)]
    assert names[0] == names[1]
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["two"]
    assert Path(f"{tmp_path / 'two'}.1.txt").read_text() == ""
    results = json.loads((tmp_path / "two" / "results.json").read_text())
    assert results["device"].startswith("2 x cpu")
    assert results["test_reads"] == 1


@pytest.mark.slow
def test_two_processes_draw_the_noise_of_one(tmp_path: Path):
    noisy = "space.candidates=[noise,sep_conv_3x3]"
    assert runs(1, tmp_path / "one", noisy)[0] == [0]
    assert runs(2, tmp_path / "two", noisy) == ([0, 0], [[], []])
    assert_same(tmp_path / "two", tmp_path / "one", "search", "retrain")
    kept = json.loads((tmp_path / "two" / "architecture.json").read_text())["choices"]
    assert ["noise"] in [names for rows in kept.values() for names in rows.values()]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_a_search_of_two_processes_ends_as_one_does(strategy: str, tmp_path: Path):
    overrides = [f"strategy={strategy}", "task=search"]
    assert runs(1, tmp_path / "one", *overrides)[0] == [0]
    assert runs(2, tmp_path / "two", *overrides)[0] == [0, 0]
    # a second derivative amplifies rounding; in float64 its steps agree like all others
    within = 1e-3 if strategy == "darts_second_order" else 1e-4
    assert_same(tmp_path / "two", tmp_path / "one", "search", within=within)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 2)])
@pytest.mark.parametrize("step", [3, 12], ids=["search", "retrain"])
def test_interrupted_it_goes_on_with_another_number_of_processes(
    before: int, after: int, step: int, whole: Path, tmp_path: Path
):
    """The signal goes to the last process only; all save at the same step."""
    folder = tmp_path / "run"
    codes, said = runs(before, folder, act={before - 1: (step, signal.SIGUSR1)})
    assert codes == [75] * before
    lines = [line for one in said for line in one]
    assert len(lines) == 1
    assert "stopped and saved; run the same command to continue" in lines[0]
    assert runs(after, folder)[0] == [0] * after
    assert_same(folder, whole, "search", "retrain")


@pytest.mark.slow
def test_with_local_norms_an_interrupted_run_ends_as_one_that_was_not(tmp_path: Path):
    """Bit for bit, on the same number of processes; states of both are compared at every save."""
    overrides = [
        "runtime.sync_batch_norm=false", "runtime.form=auto", "strategy=pcdarts",
        "search.batch_size=16", "retrain.batch_size=20", "checkpoint.every_seconds=0",
    ]  # fmt: skip
    assert runs(2, tmp_path / "whole", *overrides) == ([0, 0], [[], []])
    for step in (3, 12):
        assert runs(2, tmp_path / "run", *overrides, act={1: (step, signal.SIGUSR1)})[0] == [75, 75]
    assert runs(2, tmp_path / "run", *overrides)[0] == [0, 0]
    assert_same(tmp_path / "run", tmp_path / "whole", "search", "retrain", within=0)


@pytest.mark.slow
@pytest.mark.parametrize("dead", [0, 1])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hangs"])
def test_a_lost_process_ends_the_others_within_a_minute(
    dead: int, how: int, whole: Path, tmp_path: Path
):
    folder, port = tmp_path / "run", free_port()
    act = {dead: (6, how)}
    processes = [
        SERVER.Process(
            target=ranked,
            args=(r, 2, port, command, folder, ["checkpoint.every_seconds=0"], act),
        )
        for r in range(2)
    ]
    for process in processes:
        process.start()
    lost, survivor = processes[dead], processes[1 - dead]
    while lost.is_alive() and _status(lost.pid) != "T":
        time.sleep(0.1)
    began = time.monotonic()
    survivor.join(60)
    seconds = time.monotonic() - began
    lost.kill()
    assert survivor.exitcode == 75, "it did not end"
    said = Path(f"{folder}.{1 - dead}.txt").read_text().splitlines()[-1]
    assert "another one was lost" in said
    assert "what was saved is kept, run the same command again" in said
    print(f"the other process ended after {seconds:.1f} s: {said}")
    assert runs(2, folder) == ([0, 0], [[], []])
    assert_same(folder, whole, "search", "retrain")


def _status(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.slow
def test_torchrun_ends_all_when_a_process_is_killed_and_continues(whole: Path, tmp_path: Path):
    folder = tmp_path / "run"
    started = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2",
        f"--master-port={free_port()}", str(ROOT / "run.py"), *TINY, f"hydra.run.dir={folder}",
        "checkpoint.every_seconds=0",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launcher = subprocess.Popen(started, cwd=ROOT, env=environment, stderr=subprocess.PIPE)
    while len(list((folder / "checkpoints").glob("search_*.pt"))) < 2:
        assert launcher.poll() is None
        time.sleep(0.05)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    began = time.monotonic()
    _, said = launcher.communicate(timeout=60)
    assert launcher.returncode != 0
    print(f"torchrun ended after {time.monotonic() - began:.1f} s")
    # torchrun stops the survivor at once: whether that one still reports the loss is a race
    assert f"(SIGKILL) received by PID {children[-1]}" in said.decode()
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    ended = subprocess.run(started, cwd=ROOT, env=environment, capture_output=True, timeout=300)
    assert ended.returncode == 0, ended.stderr.decode()[-2000:]
    assert_same(folder, whole, "search", "retrain")


REFUSED = {
    "search.batch_size=2": "search.batch_size: 2 images for 3 processes",
    "strategy.warmup=2": "strategy.warmup: expected a number",
    "-m": "its processes share one run, found a sweep",
}


@pytest.mark.slow
@pytest.mark.parametrize("override", REFUSED)
def test_what_cannot_be_is_refused_by_one_line(override: str, tmp_path: Path):
    codes, said = runs(3, tmp_path / "run", override)
    assert codes == [2, 2, 2]
    assert len([line for one in said for line in one if REFUSED[override] in line]) == 1
    assert sum(map(len, said)) == 1


@pytest.mark.slow
def test_a_nan_on_one_process_is_found_by_all_and_the_checkpoint_continues(
    whole: Path, tmp_path: Path
):
    codes, said = runs(2, tmp_path / "run", act={1: (4, POISON)})
    assert codes == [4, 4]
    (line,) = [line for one in said for line in one]
    assert "search epoch 2, step 1: the val_loss is nan" in line
    assert runs(2, tmp_path / "run")[0] == [0, 0]
    assert_same(tmp_path / "run", whole, "search", "retrain")


@pytest.mark.slow
def test_images_on_disk_are_decoded_in_shares(tmp_path: Path):
    image_tree(tmp_path / "images", classes=3, images=14)
    overrides = [
        "data=folder", f"data.root={tmp_path / 'images'}", "data.memory_mb=0", "data.workers=0",
        "task=search",
    ]  # fmt: skip
    assert runs(1, tmp_path / "one", *overrides) == ([0], [[]])
    assert runs(2, tmp_path / "two", *overrides) == ([0, 0], [[], []])
    assert_same(tmp_path / "two", tmp_path / "one", "search")


def parted(rank: int) -> None:
    """Exits with the number of threads that a process still has once it left the others."""

    def slow(processes: Processes):
        processes._over.wait()
        time.sleep(0.3)

    Processes._look = slow  # type: ignore[method-assign]
    distributed.start()
    distributed.finish()
    os._exit(threading.active_count() - 1)


def test_a_process_that_left_the_others_has_no_thread_of_theirs():
    """A thread that outlives it drops the process group while Python shuts down, which aborts."""
    assert together(2, parted) == [0, 0]


def different(rank: int, folder: Path) -> None:
    command(rank, folder, [f"search.epochs={2 + rank}"], {})


@pytest.mark.slow
def test_different_commands_are_refused(tmp_path: Path):
    assert together(2, different, tmp_path / "run") == [2, 2]
    texts = "".join(Path(f"{tmp_path / 'run'}.{rank}.txt").read_text() for rank in range(2))
    assert "process 1 differs from process 0 in search.epochs" in texts
