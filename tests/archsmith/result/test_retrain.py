import itertools
import json
import math
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from archsmith.data.loader import Images
from archsmith.data.roles import Data
from archsmith.data.split import Settings
from archsmith.errors import ConfigError, Interrupted, NumbersError, OutOfMemory
from archsmith.result import retrain as module
from archsmith.result.recipe import Recipe
from archsmith.result.retrain import MovingAverage, Retraining, retrain, training_loader
from archsmith.train import epochs as runner
from archsmith.train.checkpoint import Checkpoints
from archsmith.train.record import Progress, Record
from archsmith.train.runtime import Computing
from search_spaces.architecture import Architecture
from supernets.native import build

CPU = torch.device("cpu")
FORMS = ["reference", *(["native"] if build.compiler() else [])]
TOY = Recipe(
    layers=3, channels=8, stem=None, epochs=3, batch_size=8, lr=0.05, min_lr=0.0, schedule="cosine",
    warmup_epochs=0, momentum=0.9, nesterov=True, weight_decay=1e-3, clip=5.0, label_smoothing=0.1,
    auxiliary_weight=0.4, drop_path=0.3, crop=2, flip=True, cutout=4, ema=0.8, precision="float32",
)  # fmt: skip


def never(shape) -> Images:
    raise AssertionError("the test images were read")


def toy_data(images: int = 20) -> Data:
    """Random pixels of 10 classes; reading the test images fails."""
    source = torch.Generator().manual_seed(1)
    pixels = torch.randint(256, (images, 3, 16, 16), dtype=torch.uint8, generator=source)
    settings = Settings(None, 0.5, 0.1, {"crop": 0, "flip": False, "cutout": 0}, 0)
    names = [str(k) for k in range(10)]
    return Data("toy", names, Images(pixels, torch.arange(images) % 10), never, settings)


@pytest.fixture
def run(toy_darts, tmp_path):
    """Retrains a toy architecture in a folder of `tmp_path`."""
    kept = {
        group: {"0-2": ("sep_conv_3x3",), "1-2": ("skip_connect",), "0-3": ("max_pool_3x3",),
                "2-3": ("dil_conv_3x3",)}
        for group in toy_darts.groups
    }  # fmt: skip

    def run(recipe: Recipe, folder: str, seed: int = 0, seconds: float = 60, **options):
        """Saves at the start, at the end, when it is stopped, and every so many seconds."""
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        return retrain(
            toy_darts,
            Architecture.of(toy_darts, kept),
            training_loader(toy_data(), recipe, seed),
            recipe,
            seed=seed,
            computing=Computing(options.pop("form", "reference"), CPU),
            record=Record(place),
            checkpoints=Checkpoints(place / "checkpoints", "retrain", {}, every_seconds=seconds),
            **options,
        )

    return run


def metrics(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(n == m and torch.equal(s, t) for (n, s), (m, t) in pairs)


class Fixed(nn.Module):
    """Logits that are weights; class 1 has probability 3/4, in the auxiliary output 1/2."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.0, math.log(3)]))
        self.other = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor):
        logits = self.logits.expand(len(x), 2)
        return (logits, self.other.expand(len(x), 2)) if self.training else logits

    def set_drop_path(self, probability: float) -> None: ...


def test_loss_is_smoothed_and_adds_the_weighted_auxiliary_loss():
    training = Retraining(Fixed(), [], replace(TOY, ema=None))
    x, y = torch.zeros(3, 1), torch.ones(3).long()
    logged, numbers = training.train_step((x, y))
    main = -(0.95 * math.log(0.75) + 0.05 * math.log(0.25))  # smoothing 0.1 over 2 classes
    assert logged["train_loss"].item() == pytest.approx(main)
    assert logged["train_accuracy"].item() == 1.0
    assert numbers["loss"].item() == pytest.approx(main + 0.4 * math.log(2))


def unbalanced(labels: list[int]) -> Data:
    pixels = torch.zeros(len(labels), 3, 4, 4, dtype=torch.uint8)
    settings = Settings(None, 0.5, 0.1, {"crop": 0, "flip": False, "cutout": 0}, 0)
    return Data("toy", ["rare", "common"], Images(pixels, torch.tensor(labels)), never, settings)


@pytest.mark.parametrize("parts", [1, 2])
def test_balanced_weights_are_n_over_k_times_the_images_of_a_class(parts: int):
    """1 and 3 images of 2 classes: 4 / (2 * 1) = 2 and 4 / (2 * 3) = 2/3. With the network's
    probabilities of 1/4 and 3/4, and labels smoothed by 0.1 (0.05 of each class)."""
    recipe = replace(TOY, ema=None, class_weights="balanced", micro_batches=parts, clip=None,
                     auxiliary_weight=0.0, momentum=0.0, nesterov=False, weight_decay=0.0, lr=1.0,
                     crop=0, cutout=0)  # fmt: skip
    training = Retraining(Fixed(), training_loader(unbalanced([0, 1, 1, 1]), recipe, 0), recipe)
    assert training.class_weights.tolist() == pytest.approx([2, 2 / 3])
    rare, common = math.log(4), math.log(4 / 3)
    spread = 0.05 * (2 * rare + 2 / 3 * common)
    by_hand = (0.9 * (2 * rare + 3 * 2 / 3 * common) + 4 * spread) / 4
    logged, _ = training.train_step((torch.zeros(4, 1), torch.tensor([0, 1, 1, 1])))
    assert logged["train_loss"].item() == pytest.approx(by_hand)
    # d loss / d logit 1 is p * (all weights of a loss) - (those of class 1); a step of 1 against it
    mass, ones = (0.9 * 4 + 4 * 0.05 * (2 + 2 / 3)) / 4, (0.9 * 2 + 4 * 0.05 * 2 / 3) / 4
    gradient = 0.75 * mass - ones
    assert training.net.logits[1].item() == pytest.approx(math.log(3) - gradient, rel=1e-5)


def test_without_class_weights_every_image_counts_alike():
    recipe = replace(TOY, ema=None, crop=0, cutout=0)
    training = Retraining(Fixed(), training_loader(unbalanced([0, 1, 1, 1]), recipe, 0), recipe)
    assert training.class_weights is None


def test_step_without_momentum_descends_the_clipped_gradient():
    recipe = replace(TOY, ema=None, momentum=0.0, nesterov=False, weight_decay=0.0, clip=0.1,
                     label_smoothing=0.0, auxiliary_weight=0.0, lr=0.5)  # fmt: skip
    training = Retraining(Fixed(), [], recipe)
    training.train_step((torch.zeros(3, 1), torch.zeros(3).long()))
    # gradient (1/4 - 1, 3/4), of norm 1.06, is cut to norm 0.1; the step is half of it
    expected = torch.tensor([0.0, math.log(3)]) + 0.05 * torch.tensor([1.0, -1.0]) / math.sqrt(2)
    torch.testing.assert_close(training.net.logits.detach(), expected, atol=1e-6, rtol=1e-5)


class Slope(nn.Module):
    """Logits (w x, 0) of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.w * x, torch.zeros_like(x)], 1)

    def set_drop_path(self, probability: float) -> None:
        self.drop = probability


def steps_of(training: Retraining, folder: Path):
    """The steps of an epoch, by a runner without checkpoints; batches have no positions."""
    training.loaders = {}
    return runner.Runner(training, Record(folder), Checkpoints(folder, "retrain", {})).steps


def test_d1_epochs_by_hand_descend_at_the_rates_of_the_schedule_with_momentum_and_decay(tmp_path):
    """Two epochs of one image, x = 2 of class 0, then x = -1 of class 1: by plain floats."""
    batches = [(torch.tensor([[2.0]]), torch.tensor([0])), (-torch.ones(1, 1), torch.tensor([1]))]
    recipe = replace(TOY, ema=None, epochs=2, lr=0.5, min_lr=0.1, momentum=0.9, nesterov=False,
                     weight_decay=0.01, clip=None, label_smoothing=0.0,
                     auxiliary_weight=0.0)  # fmt: skip
    net, w, speed = Slope(), 1.0, 0.0
    training = Retraining(net, batches, recipe)  # type: ignore[arg-type]
    steps, progress = steps_of(training, tmp_path), Progress("retrain", 2, 0)
    for epoch, lr in enumerate((0.5, 0.3)):  # a cosine's start and middle between 0.5 and 0.1
        list(steps(progress))
        assert (training.end_epoch()["lr"], net.drop) == pytest.approx((lr, 0.3 * epoch / 2))
        training.next_epoch()
        for x, right in ((2.0, 1.0), (-1.0, 0.0)):
            gradient = x * (1 / (1 + math.exp(-w * x)) - right) + 0.01 * w
            speed = 0.9 * speed + gradient
            w -= lr * speed
        assert net.w.item() == pytest.approx(w, rel=1e-5)
    assert w == pytest.approx(1.6784, abs=1e-4)


def test_a_nesterov_step_goes_further_by_the_momentum():
    recipe = replace(TOY, ema=None, lr=0.5, momentum=0.9, nesterov=True, weight_decay=0.0,
                     clip=None, label_smoothing=0.0, auxiliary_weight=0.0)  # fmt: skip
    training = Retraining(Slope(), [], recipe)  # type: ignore[arg-type]
    training.train_step((torch.zeros(1, 1) + 2, torch.zeros(1).long()))
    gradient = -2 / (1 + math.exp(2))
    assert training.net.w.item() == pytest.approx(1 - 0.5 * 1.9 * gradient)


def test_retraining_sums_gradients_weighted_by_share():
    x, y = torch.zeros(5, 1), torch.tensor([0, 1, 1, 0, 1])
    found = {}
    for parts in (1, 2):
        training = Retraining(Fixed(), [], replace(TOY, ema=None, clip=None, micro_batches=parts))
        metrics, numbers = training.train_step((x, y))
        tensors = [*numbers.values(), *metrics.values()]
        found[parts] = [training.net.logits.detach(), *tensors]
    for a, b in zip(found[1], found[2], strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("images", "parts", "sizes"),
    [
        (5, 2, [3, 2]),
        (5, 3, [3, 2]),
        (3, 2, [3]),
        (4, 4, [2, 2]),
        (6, 3, [2, 2, 2]),
        (6, 1, [6]),
        (1, 3, [1]),
    ],
)
def test_a_part_of_a_batch_has_two_images_at_least(images: int, parts: int, sizes: list[int]):
    seen = []
    net = Fixed()
    net.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    training = Retraining(net, [], replace(TOY, ema=None, micro_batches=parts))  # type: ignore[arg-type]
    training.train_step((torch.zeros(images, 1), torch.zeros(images).long()))
    assert seen == sizes


def test_the_bar_shows_the_means_of_the_epoch_every_ten_steps(tmp_path, monkeypatch):
    """Weights hardly move: images are right in turns, so that means are 1/2 at even steps."""
    batches = [(torch.tensor([[2.0]]), torch.tensor([i % 2])) for i in range(21)]
    recipe = replace(TOY, ema=None, lr=1e-12, label_smoothing=0.0, auxiliary_weight=0.0)
    training = Retraining(Slope(), batches, recipe)  # type: ignore[arg-type]
    noted: list[tuple] = []
    monkeypatch.setattr(Progress, "note", lambda _, *shown: noted.append(shown))
    steps, progress = steps_of(training, tmp_path), Progress("retrain", 21, 0)
    assert len(list(steps(progress))) == 21
    assert training.averages.read()["train_accuracy"] == pytest.approx(11 / 21)
    training.next_epoch()
    list(steps(progress))
    loss = (math.log1p(math.exp(-2)) + math.log1p(math.exp(2))) / 2
    assert [epoch for epoch, _ in noted] == [1, 1, 2, 2]
    for _, means in noted:
        assert (means["train_loss"], means["train_accuracy"]) == pytest.approx((loss, 0.5))


def test_moving_average_of_weights():
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    average = MovingAverage(net, 0.9)
    nn.init.ones_(net.weight)
    for expected in (0.1, 0.19, 0.271):
        average.update()
        assert average.net.weight.item() == pytest.approx(expected)
    assert net.weight.item() == 1.0


def test_a_moving_average_gets_the_statistics_of_its_own_weights(run):
    net = run(replace(TOY, epochs=1, lr=1e-9, batch_size=20, crop=0, flip=False, cutout=0), "a")
    x, _ = next(iter(toy_data().training(20, 0)))  # one batch: its mean is the statistic
    with torch.no_grad():
        z = net.stem[0](x)
    torch.testing.assert_close(net.stem[1].running_mean, z.mean((0, 2, 3)), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("form", [pytest.param(FORMS[0], marks=pytest.mark.slow), *FORMS[1:]])
def test_resumed_equals_uninterrupted_bit_for_bit(run, tmp_path, form: str):
    run = partial(run, form=form)
    whole = run(TOY, "whole")
    with pytest.raises(Interrupted, match="run the same command"):
        run(TOY, "parts", stop=lambda: True)
    torch.randn(7)  # another process has another random state
    with pytest.raises(Interrupted):
        run(TOY, "parts", stop=lambda: True)
    parts = run(TOY, "parts")
    assert same(whole, parts)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "parts")
    assert same(run(TOY, "parts"), parts)  # once more after the end: nothing is trained
    assert len(metrics(tmp_path / "parts")) == TOY.epochs


@pytest.mark.skipif("native" not in FORMS, reason="no C++ compiler on this machine")
def test_a_retraining_in_the_native_form_is_that_in_the_reference(run):
    recipe = replace(TOY, epochs=1, ema=None, drop_path=0.3)
    nets = [run(recipe, form, form=form) for form in FORMS]
    x = torch.randn(4, 3, 16, 16)
    expected, found = (net(x).detach() for net in nets)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_c3_a_form_that_cannot_be_built_here_asks_for_no_other_device(run, monkeypatch):
    monkeypatch.setattr("supernets.forms.library", lambda: None)
    with pytest.raises(ConfigError, match=r"native kernels cannot be built.* or set it to fused"):
        run(TOY, "a", form="native")


def test_the_seed_decides_and_nothing_before_it(run):
    first = run(replace(TOY, epochs=1), "a")
    torch.randn(7)
    assert same(first, run(replace(TOY, epochs=1), "b"))
    assert not same(first, run(replace(TOY, epochs=1), "c", seed=1))


def test_result_is_in_eval_mode_and_gives_one_output(run):
    net = run(replace(TOY, epochs=1), "a")
    assert not any(module.training for module in net.modules())
    assert net(torch.randn(2, 3, 16, 16)).shape == (2, 10)


def test_every_epoch_is_logged(run, tmp_path):
    recipe = replace(TOY, ema=None, auxiliary_weight=0.0)
    net = run(recipe, "a")
    lines = metrics(tmp_path / "a")
    assert [(line["phase"], line["step"]) for line in lines] == [("retrain", e) for e in range(3)]
    cosine = [0.05, 0.0375, 0.0125]  # (1 + cos(0, 60, 120 degrees)) / 2
    assert [line["lr"] for line in lines] == pytest.approx(cosine)
    assert set(lines[0]) == {"phase", "step", "train_loss", "train_accuracy", "lr"}
    assert net.auxiliary is None
    drops = {module.drop for module in net.modules() if hasattr(module, "drop")}
    assert [round(drop, 6) for drop in drops] == [0.2]  # two thirds of 0.3


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_passes_have_the_precision_and_weights_float32(run, monkeypatch, precision: str):
    seen = set()
    loss = Retraining._cross_entropy
    monkeypatch.setattr(
        Retraining, "_cross_entropy", lambda self, z, y: [seen.add(z.dtype), loss(self, z, y)][1]
    )
    net = run(replace(TOY, epochs=1, precision=precision), "a")
    assert seen == {getattr(torch, precision)}
    assert {p.dtype for p in net.parameters()} == {torch.float32}


def test_a_micro_batch_has_two_images_at_least(run, monkeypatch):
    """Of 8 and 4 images: 3 parts, then 2; a batch norm cannot normalise one image."""
    sizes = []
    losses = Retraining._losses
    monkeypatch.setattr(
        Retraining, "_losses", lambda self, x, y: [sizes.append(len(x)), losses(self, x, y)][1]
    )
    run(replace(TOY, epochs=1, micro_batches=3), "a")
    assert sizes == [3, 3, 2, 3, 3, 2, 2, 2]


def test_a_loss_that_is_not_finite_is_named_by_its_step(monkeypatch, run, tmp_path):
    step = Retraining.train_step

    def poisoned(self, batch):
        x, y = batch
        at = (self.loader.epoch, self.loader.batch)
        return step(self, (x * math.nan if at == (1, 2) else x, y))

    monkeypatch.setattr(Retraining, "train_step", poisoned)
    with pytest.raises(NumbersError, match=r"epoch 2, step 2: the loss is nan; lower retrain.lr"):
        run(TOY, "a", seconds=0)
    state = Checkpoints(tmp_path / "a" / "checkpoints", "retrain", {}).load()
    assert (state["epoch"], state["step"]) == (1, 1)
    assert all(t.isfinite().all() for t in state["net"].values())


def test_a_weight_that_is_not_finite_is_not_saved(monkeypatch, run, tmp_path):
    step = Retraining.train_step

    def poisoned(self, batch):
        found = step(self, batch)
        if self.epoch == 1:
            with torch.no_grad():
                self.net.stem[0].weight[0] = math.inf
        return found

    monkeypatch.setattr(Retraining, "train_step", poisoned)
    with pytest.raises(NumbersError, match=r"epoch 2: 'stem.0.weight' is no longer finite"):
        run(TOY, "a", seconds=0)
    state = Checkpoints(tmp_path / "a" / "checkpoints", "retrain", {}).load()
    assert (state["epoch"], state["step"]) == (1, 0)


def test_an_augmentation_that_does_not_fit_names_the_recipe(run):
    with pytest.raises(ConfigError, match=r"cutout: 16 could blank.*retrain.crop, flip and cutout"):
        run(replace(TOY, cutout=16), "a")


@pytest.mark.slow
def test_stopped_after_every_step_equals_uninterrupted(run, tmp_path):
    recipe = replace(TOY, epochs=2)
    whole, stops = run(recipe, "whole"), 0
    while stops < 20:
        try:
            parts = run(recipe, "parts", stop=lambda: True)
            break
        except Interrupted:
            stops += 1
            torch.randn(stops)
    assert 6 <= stops < 20
    assert same(whole, parts)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "parts")


@pytest.mark.slow
def test_out_of_memory_once_goes_on_in_parts_as_if_from_the_start(run, monkeypatch):
    expected = run(replace(TOY, epochs=1, micro_batches=2), "parts")
    real, made = Retraining.train_step, []

    def failing(self, batch):
        made.append(1)
        found = real(self, batch)
        if len(made) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return found

    monkeypatch.setattr(Retraining, "train_step", failing)
    assert same(run(replace(TOY, epochs=1), "fails"), expected)
    made.clear()
    monkeypatch.setattr(Retraining, "train_step", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(OutOfMemory, match=r"retrain: out of memory.*retrain.micro_batches=4"):
        run(replace(TOY, epochs=1), "never")


@pytest.mark.parametrize(
    ("worth", "processes", "batch", "probed"),
    [(9, 1, 8, [8]), (3, 1, 64, [20]), (10, 1, 8, []), (9, 2, 8, [])],
)
def test_memory_is_probed_before_a_long_retraining_of_one_process(
    worth: int, processes: int, batch: int, probed: list[int], run, monkeypatch
):
    """Three epochs of 3 steps; a batch has no more images than there are: 20."""
    asked = []
    monkeypatch.setattr(runner, "PROBED_STEPS", worth)
    monkeypatch.setattr(runner.distributed, "size", lambda: processes)
    monkeypatch.setattr(module, "across_processes", lambda net: None)
    monkeypatch.setattr(runner, "step_memory", lambda prepared, parts: (prepared(3)(), parts))
    monkeypatch.setattr(runner, "check_memory", lambda *given, **more: asked.append((given, more)))
    monkeypatch.setattr(runner, "sparing", lambda group, *_, **__: group)
    steps, real = [], Retraining.train_step

    def stepping(self, batch):
        drops = {one.drop for one in self.net.modules() if hasattr(one, "drop")}
        steps.append((self.net.training, len(batch[0]), drops))
        return real(self, batch)

    monkeypatch.setattr(Retraining, "train_step", stepping)
    assert run(replace(TOY, batch_size=batch, micro_batches=2), "a") == "retrain"
    assert [given[0] for given, _ in asked] == ["retrain"] * len(probed)
    assert [given[1][1:] for given, _ in asked] == [(2,)] * len(probed)
    assert [given[2:] for given, _ in asked] == [(size, 2, CPU) for size in probed]
    assert steps == [(True, 3, {0.3})] * len(probed)  # at the largest drop path


@pytest.mark.parametrize("due", [False, True])
def test_it_is_saved_at_the_start_at_the_end_and_when_due(due: bool, run, monkeypatch):
    found: list[tuple[int, int]] = []
    monkeypatch.setattr(Checkpoints, "due", lambda self, **how: due)
    monkeypatch.setattr(
        Checkpoints, "save", lambda self, state: found.append((state["epoch"], state["step"]))
    )
    run(replace(TOY, ema=None, epochs=2), "a")
    steps = [(0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3)] if due else []
    assert found == [(0, 0), *steps, (2, 0)]


def test_the_bar_counts_all_steps_and_goes_on_where_it_was_stopped(run, monkeypatch):
    """Two epochs of three steps, stopped after the second step of the second epoch."""
    begun: list[tuple[int, int]] = []
    resumed: list[tuple[str, int]] = []

    def progress(phase: str, total: int, done: int) -> Progress:
        begun.append((total, done))
        return Progress(phase, total, done)

    monkeypatch.setattr(runner, "Progress", progress)
    monkeypatch.setattr(Record, "resume", lambda self, *where: resumed.append(where))
    asked = itertools.count(1)
    recipe = replace(TOY, ema=None, epochs=2)
    with pytest.raises(Interrupted):
        run(recipe, "a", stop=lambda: next(asked) == 6)
    run(recipe, "a")
    assert begun == [(6, 0), (6, 5)]
    assert resumed == [("retrain", 0), ("retrain", 1)]


def test_it_asks_after_every_step_and_between_epochs_whether_to_stop(run, tmp_path):
    asked = []
    began = time.perf_counter()
    run(replace(TOY, ema=None), "a", stop=lambda: bool(asked.append(1)))
    took = time.perf_counter() - began
    assert len(asked) == 3 * 3 + 2
    lines = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").open()]
    seconds = [line["seconds"] for line in lines]
    assert all(second > 0 for second in seconds)
    assert sum(seconds) <= took


def test_a_loss_like_guessing_is_told_in_the_epoch_that_judges(run, monkeypatch, caplog):
    monkeypatch.setattr(runner, "judged_at", lambda epochs, steps: {(3, 3): 1}[epochs, steps])
    real = Retraining.end_epoch
    monkeypatch.setattr(Retraining, "end_epoch", lambda self: real(self) | {"train_loss": 9.9})
    caplog.set_level("INFO")
    run(replace(TOY, ema=None), "a")
    said = [r.getMessage() for r in caplog.records if r.name == runner.__name__]
    said = [line for line in said if "epoch " in line and not line.startswith("retrain: cont")]
    assert [line[: line.find(":", 9)] for line in said] == [
        "retrain epoch 1/3", "retrain epoch 2/3", "retrain: not learning", "retrain epoch 3/3",
    ]  # fmt: skip
    assert said[2].startswith("retrain: not learning: the mean train loss of the epoch is 9.900")


def test_a_brief_training_logs_its_last_epoch_alone(run, caplog, tmp_path):
    caplog.set_level("INFO")
    run(replace(TOY, ema=None), "a", brief=True)
    said = [r.getMessage() for r in caplog.records if r.name == runner.__name__]
    lines = [line.partition(":")[0] for line in said if line.startswith("retrain epoch")]
    assert lines == ["retrain epoch 3/3"]
    assert len((tmp_path / "a" / "metrics.jsonl").read_text().splitlines()) == 3


def test_an_auxiliary_head_is_there_where_it_has_a_weight(run):
    assert run(replace(TOY, epochs=1, ema=None, auxiliary_weight=0.01), "a").auxiliary is not None
    assert run(replace(TOY, epochs=1, ema=None, auxiliary_weight=0.0), "b").auxiliary is None


def test_adamw_decays_matrices_alone():
    recipe = replace(TOY, optimizer="adamw", nesterov=False)
    net = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    groups = module.optimizer(net, recipe).param_groups
    assert [group["weight_decay"] for group in groups] == [1e-3, 0.0]
    assert [len(group["params"]) for group in groups] == [1, 3]
    assert groups[0]["betas"] == (0.9, 0.99)


def test_nesterov_belongs_to_sgd():
    with pytest.raises(ValueError, match="nesterov: belongs to optimizer=sgd"):
        replace(TOY, optimizer="adamw")
