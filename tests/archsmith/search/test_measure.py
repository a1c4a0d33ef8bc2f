"""What `measure` reads, in which order, and what it reports of it."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from recording import recorded
from test_every_config import composed, make
from torch import nn

from archsmith.data.roles import Roles
from archsmith.search.measure import (
    Found,
    capture_of,
    discretised_accuracy,
    measure,
    measured_again,
)
from archsmith.train.replay import Replay
from search_spaces.architecture import Architecture
from search_spaces.darts import darts
from strategies.gradients import Batch
from strategies.relaxation.gumbel import Gumbel
from strategies.strategy import Strategy
from supernets.mixture import Mixture
from supernets.network import Network, supernet


class Recording:
    """Batches of one role; notes each pass over them."""

    def __init__(self, role: str, read: list[str], batches: list[Batch]):
        self.role, self.read, self.batches = role, read, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        self.read.append(self.role)
        return iter(self.batches)


def images(count: int, mean: float) -> Batch:
    return torch.randn(count, 1, 8, 8) + mean, torch.randint(3, (count,))


@pytest.fixture
def parts() -> tuple[Network, Strategy, Any, list[str]]:
    """The images of the statistics have mean 5, the held-out ones mean -2."""
    names = ["none", "skip_connect", "sep_conv_3x3"]
    space = darts(layers=3, nodes=1, channels=4, candidates=names, input_shape=(1, 8, 8), classes=3)
    strategy = make(composed("strategy=darts", "strategy.alpha_init=1.0").strategy, space=space)
    net = supernet(space, strategy.mixed_op)
    strategy.setup(net, torch.device("cpu"))
    read: list[str] = []
    roles = Roles(
        train=Recording("train", read, [images(4, 0.0)]),  # type: ignore[arg-type]
        val=Recording("val", read, [images(4, 0.0)]),  # type: ignore[arg-type]
        select=Recording("select", read, [images(30, -2.0), images(10, -2.0)]),  # type: ignore[arg-type]
        statistics=Recording("statistics", read, [images(20, 5.0)]),  # type: ignore[arg-type]
        sample=Recording("sample", read, [images(6, 1.0)]),  # type: ignore[arg-type]
    )
    return net, strategy, roles, read


def test_d1_statistics_are_of_training_images_and_accuracies_of_held_out_ones(parts):
    net, strategy, roles, read = parts
    found = measure(net, strategy, roles, {"seed": 4}, curvature=False)

    assert read == ["statistics", "select"] * 2  # of the supernet, then of the discrete network
    (x, _), = roles.statistics.batches  # fmt: skip
    stem = net.stem[0](x).mean((0, 2, 3)).detach()
    torch.testing.assert_close(net.stem[1].running_mean, stem, atol=1e-5, rtol=1e-4)

    x, y = (torch.cat(part) for part in zip(*roles.select.batches, strict=True))
    with torch.no_grad():
        logits = net.eval()(x, strategy.mixture(noise=False))
    right = (logits.argmax(1) == y).float().mean().item()
    assert found.supernet_accuracy == pytest.approx(right)
    assert found.metrics["supernet_loss"] == pytest.approx(F.cross_entropy(logits, y).item())
    gap = found.metrics["supernet_accuracy"] - found.metrics["discretised_accuracy"]
    assert found.metrics["discretisation_gap"] == pytest.approx(gap)
    assert found.metrics["lr"] == 0.025
    assert found.architecture.meta == {"seed": 4}


def test_measuring_draws_no_gates(parts):
    net, strategy, roles, _ = parts
    strategy.relaxation = Gumbel(1.0, 1.0)
    state = torch.get_rng_state()
    measure(net, strategy, roles, {}, curvature=False)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_discrete_network_is_measured_with_statistics_and_candidates_of_its_own(parts):
    net, strategy, roles, _ = parts
    found = measure(net, strategy, roles, {}, curvature=False)
    mixture = Mixture.of(found.architecture, net.space, torch.device("cpu"))
    (train, _), = roles.statistics.batches  # fmt: skip
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # what one training batch says, and nothing else
    with torch.no_grad():
        net.train()(train, mixture)
        x, y = (torch.cat(part) for part in zip(*roles.select.batches, strict=True))
        right = (net.eval()(x, mixture).argmax(1) == y).float().mean().item()
    assert found.discretised_accuracy == pytest.approx(right)


def test_a5_curvature_is_measured_on_the_sample(parts, monkeypatch):
    net, strategy, roles, read = parts
    asked = []
    for name, value in (("alpha_eigenvalue", 0.5), ("weight_sharpness", 0.25)):
        measured = lambda *given, value=value: asked.append(given) or value  # noqa: E731
        monkeypatch.setattr(f"archsmith.search.measure.{name}", measured)
    found = measure(net, strategy, roles, {}, curvature=True).metrics
    assert (found["alpha_eigenvalue"], found["weight_sharpness"]) == (0.5, 0.25)
    assert read[-1:] == ["sample"]
    assert all(given == (net, strategy, roles.sample.batches[0]) for given in asked)
    assert len(asked) == 2


def test_an_earlier_architecture_is_measured_again_and_the_rest_stays(parts):
    net, strategy, roles, _ = parts
    skips = {name: {"0-2": ("skip_connect",)} for name in strategy.space.choices}
    earlier = Architecture.of(strategy.space, skips)
    last = measure(net, strategy, roles, {}, curvature=False)
    last = Found(last.architecture, 0.75, 0.5, last.metrics | {"lr": 0.125, "skips": -1})
    found = measured_again(net, roles, last, earlier)
    accuracy = discretised_accuracy(net, earlier, roles)
    assert (found.architecture, found.supernet_accuracy) == (earlier, 0.75)
    assert found.discretised_accuracy == found.metrics["discretised_accuracy"] == accuracy
    assert found.metrics["discretisation_gap"] == pytest.approx(0.75 - accuracy)
    assert (found.metrics["lr"], found.metrics.keys()) == (0.125, last.metrics.keys())


class Outside(nn.Identity):
    """A layer that does not say what it reads."""


def test_passes_are_captured_where_those_of_the_training_are(parts):
    """Of the 30 and 10 images two batches each, so that each size is captured once a network."""
    net, strategy, roles, _ = parts
    eager = measure(net, strategy, roles, {}, curvature=False)
    roles.select.batches = roles.select.batches * 2
    twice = measure(net, strategy, roles, {}, curvature=False)
    captured = []

    def capture(compute):
        captured.append(1)
        return recorded(compute)

    strategy.gradients = Replay(strategy, net, lambda: capture)
    assert measure(net, strategy, roles, {}, curvature=False) == twice
    assert len(captured) == 4
    assert eager.supernet_accuracy == pytest.approx(twice.supernet_accuracy)
    strategy.gradients.off = True
    assert capture_of(net, strategy) is None
    strategy.gradients.off = False
    net.layers[0].edges["0-2"].ops.append(Outside())
    assert capture_of(net, strategy) is None
