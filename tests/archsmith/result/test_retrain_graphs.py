"""Retraining steps that are captured and replayed are those of eager operations, bit for bit; on a
CPU `recording` stands in for CUDA graphs."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from recording import recorded
from torch import Tensor, nn
from toy_recipe import EDGES, RECIPE

from archsmith.result.recipe import Recipe
from archsmith.result.retrain import Retraining, optimizer
from search_spaces.architecture import Architecture
from search_spaces.space import Space
from supernets.final import ChosenOps
from supernets.network import final_network


def network(space: Space) -> Any:
    found = Architecture.of(space, dict.fromkeys(space.groups, EDGES))
    net = final_network(space, found, auxiliary=True).train()
    net.drop_probability = torch.zeros(())  # as on CUDA
    return net


class Run:
    """Three epochs of five steps; counts captures, and passes that Python ran."""

    def __init__(self, space: Space, recipe: Recipe, *, graphs: bool, taught: bool = False):
        torch.manual_seed(0)
        self.captures = self.passes = 0
        teacher = network(space) if taught else None
        self.training = Retraining(network(space), [], recipe, teacher)  # type: ignore[arg-type]
        if graphs:
            self.training.replay(lambda: self.captured)

    def captured(self, compute: Any) -> Any:
        self.captures += 1
        return recorded(compute)

    def epoch(self, epoch: int) -> list[dict[str, float]]:
        training, losses = self.training, self.training._losses
        training.epoch = epoch
        training.start_epoch()

        def counted(*args: Tensor) -> Any:
            self.passes += 1
            return losses(*args)

        training._losses = counted  # type: ignore[method-assign]
        generator, found = torch.Generator().manual_seed(epoch), []
        for _ in range(5):
            x = torch.randn(4, 3, 16, 16, generator=generator)
            y = torch.randint(10, (4,), generator=generator)
            metrics, numbers = training.train_step((x, y))
            found.append({k: float(v) for k, v in (metrics | numbers).items()})
        training._losses = losses  # type: ignore[method-assign]
        return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [{}, {"precision": "bfloat16"}, {"optimizer": "adamw"}, {"teacher": "full"}],
    ids=str,
)
def test_replayed_steps_equal_eager_ones(change: dict[str, str], toy_darts: Space):
    """In the first epoch nothing is dropped; then one graph serves every probability."""
    runs, found = [], []
    for graphs in (False, True):
        runs.append(
            Run(toy_darts, replace(RECIPE, **change), graphs=graphs, taught="teacher" in change)
        )
        found.append([runs[-1].epoch(epoch) for epoch in range(3)])
    assert found[0] == found[1]
    for nets in zip(*((r.training.net, r.training.average.net) for r in runs), strict=True):
        states = (net.state_dict().values() for net in nets)
        assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
    graphs = runs[1]
    assert graphs.captures == 2
    assert not graphs.training.gradients.off  # type: ignore[union-attr]
    # Eager twice, captured and checked twice in the first epoch; eager twice and captured in the
    # second.
    assert (runs[0].passes, graphs.passes) == (15, 8)


def test_a_replay_drops_with_the_probability_of_its_epoch(toy_darts: Space):
    """Of 4000 draws of a graph that was captured at 0.1, 40% are dropped once it is 0.4."""
    net = network(toy_darts)
    edge = next(m for m in net.modules() if isinstance(m, ChosenOps))
    net.set_drop_path(0.1)
    kept, replay = recorded(lambda: edge.kept(torch.empty(4000, 1)))
    assert float(kept.mean()) == pytest.approx(0.9, abs=0.03)
    net.set_drop_path(0.4)
    replay()
    assert float(kept.mean()) == pytest.approx(0.6, abs=0.04)
    net.set_drop_path(0.0)
    assert edge.keep(edge.ops[0], torch.empty(4, 1)) is None


def test_micro_batches_and_layers_that_do_not_tell_are_never_captured(toy_darts: Space):
    class Own(nn.Identity):
        pass

    for change in ("micro_batches", "layer"):
        run = Run(toy_darts, RECIPE, graphs=False)
        if change == "layer":
            run.training.net.head.insert(0, Own())
        run.training.micro_batches = 2 if change == "micro_batches" else 1
        run.training.replay(lambda run=run: run.captured)
        run.epoch(0)
        assert run.captures == 0


def test_memory_is_given_back_by_going_on_without_graphs(toy_darts: Space):
    run = Run(toy_darts, RECIPE, graphs=True)
    assert run.training.release()
    assert not run.training.release()
    run.epoch(0)
    assert (run.captures, run.passes) == (0, 5)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_on_cuda_one_kernel_updates_many_weights(name: str, monkeypatch, tmp_path: Path):
    made = {}
    monkeypatch.setattr(torch.optim, "SGD", lambda *_, **settings: made.update(settings))
    monkeypatch.setattr(torch.optim, "AdamW", lambda *_, **settings: made.update(settings))
    for device, kind in (("cpu", "foreach"), ("cuda", "fused")):
        made.clear()
        weight = SimpleNamespace(device=torch.device(device), dim=lambda: 2)
        net = SimpleNamespace(parameters=lambda weight=weight: iter([weight]))
        optimizer(net, replace(RECIPE, optimizer=name))  # type: ignore[arg-type]
        assert {key for key in ("foreach", "fused") if made.get(key)} == {kind}
