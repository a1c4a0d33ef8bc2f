"""F16, F28, F29 on a GPU: checkpoints between devices, and its allocator at its limit."""

from pathlib import Path

import pytest
import torch
from faults.toys import CPU, ToySearch, at

from archsmith.errors import Interrupted, OutOfMemory
from archsmith.train.checkpoint import Checkpoints
from search_spaces.space import Space
from strategies.update.first_order import FirstOrder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="not run: no CUDA device here"),
]
CUDA = torch.device("cuda")


@pytest.mark.parametrize(("first", "second"), [(CUDA, CPU), (CPU, CUDA)], ids=["to cpu", "to cuda"])
def test_f16_a_search_goes_on_on_another_device(
    first: torch.device, second: torch.device, toy_darts: Space, tmp_path: Path
):
    """With the same logits, up to 1e-4; from there on it may differ as devices do."""
    begun, resumed = ToySearch(toy_darts, "pcdarts"), ToySearch(toy_darts, "pcdarts")
    with pytest.raises(Interrupted):
        begun.run(tmp_path, device=first, stop=at(3))
    state = Checkpoints(tmp_path / "checkpoints", "search", {}).load()
    assert state is not None
    found = resumed.run(tmp_path, device=second)
    assert found.architecture.meta["epoch"] == 1
    resumed.net.load_state_dict(state["net"])
    resumed.strategy.load_state_dict(state["strategy"])
    x = torch.randn(4, 3, 8, 8)
    logits = []
    for toy, device in ((begun, first), (resumed, second)):
        with torch.no_grad():
            y = toy.net.eval()(x.to(device), toy.strategy.mixture(noise=False))
        logits.append(y.cpu())
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)


def capped(monkeypatch, name: str, calls: tuple[int, ...]) -> None:
    """In these calls the device's memory is full: no more may be taken than is taken already."""
    real, made = getattr(FirstOrder, name), 0

    def calling(self, *args):
        nonlocal made
        made += 1
        if made not in calls:
            return real(self, *args)
        total = torch.cuda.get_device_properties(CUDA).total_memory
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / total)
        try:
            torch.empty(2**28, device=CUDA)  # a toy's own tensors might fit into what is reserved
            return real(self, *args)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)

    monkeypatch.setattr(FirstOrder, name, calling)


@pytest.mark.parametrize(
    "name", ["weight_step", "alpha_gradients"], ids=["f28_weight_step", "f29_alpha_step"]
)
def test_f28_f29_a_full_device_halves_once_and_goes_on(
    name: str, toy_darts: Space, tmp_path: Path, monkeypatch, caplog
):
    toy = ToySearch(toy_darts, "darts")
    capped(monkeypatch, name, (2,))
    toy.run(tmp_path, device=CUDA)
    assert "continued from the last checkpoint with batches in 2 parts" in caplog.text
    assert toy.strategy.micro_batches == 2
    assert all(t.isfinite().all() for t in toy.tensors().values())


def test_f28_a_device_full_twice_is_exit_code_5(toy_darts: Space, tmp_path: Path, monkeypatch):
    capped(monkeypatch, "weight_step", (1, 2))
    with pytest.raises(OutOfMemory, match=r"in 2 parts \(peak \d+\.\d+ GB\)"):
        ToySearch(toy_darts, "darts").run(tmp_path, device=CUDA)
