"""Alphas shifted by a preference, and the loss that it weighs, by hand."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from latencies import OPTIONS, every, small, sums, written
from test_every_config import composed, make

from search_spaces.space import Space
from strategies.losses.preferred import Preferred
from strategies.preference.devices import DevicePreference
from strategies.strategy import Strategy
from supernets.mixture import Mixture
from supernets.network import supernet

CPU = torch.device("cpu")


def ready(space: Space, *overrides: str) -> tuple[Strategy, DevicePreference]:
    torch.manual_seed(0)
    strategy = make(composed("strategy=pareto_gates", *overrides).strategy, space=space)
    strategy.setup(supernet(space, strategy.mixed_op), CPU)
    assert isinstance(strategy.preference, DevicePreference)
    return strategy, strategy.preference


def tabled(tmp_path: Path) -> tuple[Strategy, DevicePreference]:
    space = small(OPTIONS)
    return ready(space, f"budget.latency_table={written(tmp_path / 't.csv', space)}")


def test_latency_is_0_for_the_fastest_and_1_for_the_slowest(tmp_path: Path):
    strategy, preference = tabled(tmp_path)
    architectures = [one for one in every(strategy.space) if one.choices["cell"]]
    slowest = max(architectures, key=sums)
    by_hand = {slowest.identity: 1.0}
    for one in architectures[::60]:
        by_hand[one.identity] = (sums(one) - 2.0) / 6.5
    for one in architectures:
        if one.identity in by_hand:
            found = preference.latency(Mixture.of(one, strategy.space, CPU)).item()
            assert found == pytest.approx(by_hand[one.identity], abs=1e-6)


def test_the_loss_is_that_of_the_drawn_preference(tmp_path: Path):
    strategy, preference = tabled(tmp_path)
    logits, y = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
    mixture, error = strategy.mixture(), F.cross_entropy(logits, y)
    term = strategy.losses["preferred"]
    assert isinstance(term, Preferred)
    for device in (0, 1):
        for share in (0.0, 0.3, 1.0):
            preference.choose([1 - share, share], device)
            latency = math.log(2) * preference.latency(mixture)
            found = error + term(None, (logits, y), logits, mixture)
            torch.testing.assert_close(found, (1 - share) * error + share * latency)


def test_gates_depend_on_preference_and_device_and_learn_from_latency(tmp_path: Path):
    """Descended on latency alone, the gates of that preference are of skips or nothing."""
    strategy, preference = tabled(tmp_path)
    before = strategy.mixture().groups["cell"].gates.detach()
    assert before.std() < 0.1  # about equal at the start
    optimizer = torch.optim.Adam(strategy.arch_parameters(), lr=0.01)
    for step in range(150):
        fast = step % 2
        preference.choose([1.0 - fast, float(fast)], 0)
        optimizer.zero_grad()
        latency = preference.latency(strategy.mixture())
        (latency if fast else -latency).backward()
        optimizer.step()
    found = {}
    for share in (0.0, 1.0):
        preference.choose([1 - share, share], 0)
        found[share] = strategy.mixture().groups["cell"].gates[:, 2].mean().item()
    assert found[1.0] < 0.2 < 0.8 < found[0.0]


def test_a_preference_is_drawn_per_step_and_equal_after_an_epoch(tmp_path: Path):
    strategy, preference = tabled(tmp_path)
    seen = []
    for _ in range(20):
        preference.before_step(0.5)
        seen.append((*preference.drawn.tolist(), int(preference.place)))
    assert len(set(seen)) == 20
    assert {device for *_, device in seen} == {0, 1}
    assert all(math.isclose(a + b, 1, rel_tol=1e-5) for a, b, _ in seen)
    state = {name: value.clone() for name, value in preference.state_dict().items()}
    preference.before_step(0.5)
    expected = preference.drawn.clone()
    preference.load_state_dict(state)
    preference.before_step(0.5)
    assert torch.equal(preference.drawn, expected)
    preference.epoch_end(strategy.net, strategy, None, 0.5)
    assert (preference.drawn.tolist(), int(preference.place)) == ([0.5, 0.5], 0)


def test_the_architectures_of_all_devices_and_preferences_are_kept_at_the_end(tmp_path: Path):
    strategy, preference = tabled(tmp_path)
    with torch.no_grad():
        preference.net.last.weight.normal_(0, 3)
    found = strategy.architecture()
    assert strategy.keep(found, last=False) == []
    kept = strategy.keep(found, last=True)
    assert 1 < len(kept) <= 18
    assert len({one.identity for one in kept}) == len(kept)
    assert strategy.architecture() == found


def test_what_reads_alphas_reads_those_of_the_preference(toy_nasbench201: Space):
    """An entropy, a decay, an anchor and a count; each as with these alphas and no preference."""
    terms = "strategy/losses=[preferred,beta_decay,dirichlet_anchor,macs_band]"
    strategy, preference = ready(toy_nasbench201, "strategy/relaxation=dirichlet", terms)
    plain = ready(toy_nasbench201, "strategy/relaxation=dirichlet", terms)[0]
    cold = ready(toy_nasbench201, "strategy/relaxation=sparse_noisy")[0].relaxation
    for one in (strategy, plain):
        one.epoch_start(1, 2)
    with torch.no_grad():
        preference.net.last.weight.normal_(0, 2)
        preference.choose([0.9, 0.1], 0)
        plain.alphas["cell"].copy_(strategy.shifted("cell"))
    plain.preference = None
    for name in ("beta_decay", "dirichlet_anchor", "macs_band"):
        found, expected = (
            one.losses[name](None, None, torch.empty(1, 3), one.mixture(noise=False))
            for one in (strategy, plain)
        )
        torch.testing.assert_close(found, expected)
    assert strategy.losses["macs_band"].costs_of(None) == plain.losses["macs_band"].costs_of(None)
    bounds = []
    for one in (strategy, plain):
        cold.temperature.fill_(0.5)
        cold.epoch_end(one.net, one, None, 0.6)
        bounds.append(float(cold.bound))
    assert bounds[0] == pytest.approx(bounds[1])
    assert 0.25 < bounds[0] < 1


def test_pruning_reads_the_gates_of_equal_preferences(toy_darts: Space):
    left = []
    for share in (0.0, 1.0):
        how = ["strategy/pruning=progressive", "strategy.pruning.keep=[2]"]
        strategy, preference = ready(toy_darts, *how)
        with torch.no_grad():
            preference.net.last.weight.normal_(0, 3, generator=torch.Generator().manual_seed(0))
        strategy.epoch_start(0, 2)
        preference.choose([1 - share, share], 0)  # as the last step drew it
        strategy.epoch_end(strategy.net, None, 0.5)
        left.append(strategy.alive["normal"])
    assert torch.equal(*left)


def test_the_loss_without_preferences_is_refused(toy_darts: Space):
    config = composed("strategy=darts", "strategy/losses=[preferred]").strategy
    strategy = make(config, space=toy_darts)
    with pytest.raises(ValueError, match=r"^losses\.preferred: needs strategy/preference=devices"):
        strategy.setup(supernet(toy_darts, strategy.mixed_op), CPU)
