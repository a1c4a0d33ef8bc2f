"""F28 to F32: memory that does not suffice, and batches in parts."""

import logging
from pathlib import Path

import pytest
import torch
from faults.toys import ToySearch, assert_same
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from archsmith.data import image_folder
from archsmith.errors import OutOfMemory, is_out_of_memory
from archsmith.train.memory import sparing
from search_spaces.space import Space
from strategies.micro_batches import in_parts
from strategies.strategy import Strategy
from strategies.update.first_order import FirstOrder


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def toy_net() -> tuple[nn.Module, Tensor]:
    net, x = Normed().double(), torch.randn(6, 2, 5, 5).double()
    net.eval()(x)
    return net.train(), x


def gradients(net: nn.Module, y: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(y.square().mean(), list(net.parameters())))


@pytest.mark.parametrize("parts", [2, 3])
def test_parts_equal_the_passes_they_stand_for(parts: int):
    net, x = toy_net()
    state = {name: t.clone() for name, t in net.state_dict().items()}
    plain = torch.cat([net(part) for part in x.tensor_split(parts)])
    expected, after = gradients(net, plain), {n: t.clone() for n, t in net.state_dict().items()}
    net.load_state_dict(state)
    split = in_parts(net, x, parts, net)
    found = gradients(net, split)
    assert torch.equal(split, plain)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert_same(dict(net.state_dict()), after)  # statistics are recorded once


def test_parts_can_be_differentiated_twice():
    net, x = toy_net()

    def second(y: Tensor) -> list[Tensor]:
        parameters = list(net.parameters())
        first = torch.autograd.grad(y.square().mean(), parameters, create_graph=True)
        total = sum((g.square().sum() for g in first), torch.zeros(()).double())
        return list(torch.autograd.grad(total, parameters, materialize_grads=True))

    expected = second(torch.cat([net(part) for part in x.tensor_split(2)]))
    for a, b in zip(second(in_parts(net, x, 2, net)), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_one_part_is_the_plain_pass_and_no_part_has_one_image():
    net, x = toy_net()
    seen: list[int] = []
    noting = lambda part: (seen.append(len(part)), net(part))[1]  # noqa: E731
    in_parts(noting, x, 1, net)
    in_parts(noting, x, 9, net)
    assert seen == [6, 2, 2, 2]


def out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def failing(monkeypatch, owner: type, name: str, calls: tuple[int, ...], *, late: bool) -> None:
    """Out of memory in these calls of a method, before its work or after it."""
    real, made = getattr(owner, name), 0

    def calling(self, *args, **more):
        nonlocal made
        made += 1
        if made in calls and not late:
            out_of_memory()
        found = real(self, *args, **more)
        if made in calls:
            out_of_memory()
        return found

    monkeypatch.setattr(owner, name, calling)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("owner", "name", "late"),
    [(FirstOrder, "weight_step", False),
     pytest.param(FirstOrder, "alpha_gradients", False, marks=pytest.mark.slow),
     pytest.param(Strategy, "step", True, marks=pytest.mark.slow)],
    ids=["f28_weight_step", "f29_alpha_step", "after_the_update"],
)  # fmt: skip
def test_f28_f29_once_more_in_parts_and_no_half_of_an_update(
    owner: type, name: str, late: bool, toy_darts: Space, tmp_path: Path, monkeypatch, caplog
):
    expected = ToySearch(toy_darts, "darts")
    expected.run(tmp_path / "parts", micro_batches=2)
    toy = ToySearch(toy_darts, "darts")
    failing(monkeypatch, owner, name, (1,), late=late)
    with caplog.at_level(logging.WARNING):
        toy.run(tmp_path / "fails")
    assert "continued from the last checkpoint with batches in 2 parts" in caplog.text
    assert_same(toy.tensors(), expected.tensors())  # as if it had run in parts from the start


@pytest.mark.slow
def test_f28_pruned_weights_return_with_the_checkpoint(
    toy_darts: Space, tmp_path: Path, monkeypatch
):
    """The failure comes after a cut that the checkpoint does not know of."""
    toy = ToySearch(toy_darts, "goldnas")
    monkeypatch.setattr("archsmith.train.checkpoint.Checkpoints.due", lambda *_, **__: False)
    failing(monkeypatch, Strategy, "step", (3,), late=False)
    toy.run(tmp_path)
    assert toy.strategy.micro_batches == 2


def test_f28_a_second_failure_is_exit_code_5_with_the_peak(
    toy_darts: Space, tmp_path: Path, monkeypatch
):
    failing(monkeypatch, FirstOrder, "weight_step", (2, 3), late=False)
    with pytest.raises(
        OutOfMemory, match=r"in 2 parts \(peak \d+\.\d+ GB\); set search.micro_batches=4, or lower"
    ):
        ToySearch(toy_darts, "darts").run(tmp_path)
    assert OutOfMemory.exit_code == 5


@pytest.mark.slow
def test_f28_a_resumed_search_stays_in_parts(toy_darts: Space, tmp_path: Path, monkeypatch):
    whole = ToySearch(toy_darts, "darts")
    whole.run(tmp_path / "whole", micro_batches=2)
    with monkeypatch.context() as patch:
        failing(patch, FirstOrder, "weight_step", (1, 4), late=False)
        with pytest.raises(OutOfMemory):
            ToySearch(toy_darts, "darts").run(tmp_path / "fails", every_seconds=0)
    again = ToySearch(toy_darts, "darts")
    again.run(tmp_path / "fails")
    assert again.strategy.micro_batches == 2
    assert_same(again.tensors(), whole.tensors())


@pytest.mark.parametrize("name", ["darts", "pcdarts", "goldnas", "sddarts", "gdas"])
@pytest.mark.slow
def test_every_kind_of_strategy_searches_in_parts(name: str, toy_darts: Space, tmp_path: Path):
    ToySearch(toy_darts, name).run(tmp_path, micro_batches=2)


@pytest.mark.slow
def test_second_order_searches_in_parts(toy_darts: Space, tmp_path: Path):
    ToySearch(toy_darts, "darts_second_order").run(tmp_path, micro_batches=2)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("x"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: BaseException, expected: bool):
    assert is_out_of_memory(error) == expected


class Dying(Dataset):
    def __getitem__(self, i: int) -> int:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)
        return i


@pytest.mark.slow
def test_f31_f32_a_killed_worker_is_named_and_nothing_hangs():
    loader = DataLoader(Dying(), batch_sampler=[[0], [1]], num_workers=1, timeout=50)
    with pytest.raises(OutOfMemory, match=r"DataLoader worker.*lower data.workers"):
        list(image_folder._living(loader))


def test_f28_out_of_memory_outside_the_loops_is_exit_code_5(archsmith, monkeypatch):
    monkeypatch.setattr("archsmith.cli.objects.make_job", lambda _: out_of_memory())
    said = archsmith()
    assert said.code == 5
    assert "archsmith: out of memory (CUDA out of memory" in said.err


@pytest.mark.parametrize(
    ("fails", "expected"),
    [
        (0, ["run"]),
        (1, ["run", "drop", "run"]),
        (2, ["run", "drop", "run", "halve", "run"]),
    ],
)
def test_f28_what_is_there_for_speed_alone_is_given_up_first(fails: int, expected: list, caplog):
    """CUDA graphs hold memory: without them the batch may fit, as it did before they were."""
    calls: list[str] = []

    def run() -> str:
        calls.append("run")
        if calls.count("run") <= fails:
            out_of_memory()
        return "found"

    def drop() -> bool:
        calls.append("drop")
        return True

    def halve() -> int:
        calls.append("halve")
        return 2

    assert sparing("search", run, halve, torch.device("cpu"), drop=drop) == "found"
    assert calls == expected
    assert ("out of memory with CUDA graphs; continued without" in caplog.text) == (fails > 0)
