"""One search for many devices: gates conditioned on a preference, and a front per device.

MODNAS's (Sukthanker et al. 2024, arXiv:2402.18213): a hypernetwork gives the architecture
parameters for a preference and a device; it is trained on preferences drawn from the simplex, on
accuracy and latency weighed by them, for all devices in one search. Ours: accuracy is not the loss
of a supernet trained along with it, but a surrogate's, fitted to the scores that are asked for; the
form of the network; which architectures are asked for. Left out: the gradients of several devices
are averaged, not combined by multiple gradient descent.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search_spaces.architecture import Architecture
from search_spaces.settings import Count, checked
from search_spaces.space import Space
from strategies.discretisation.strongest import strongest
from strategies.fronts import front, gains
from strategies.preference.network import PreferenceNetwork, marginals, simplex
from strategies.searchers.encoding import Kept
from strategies.searchers.on_devices import OnDevices, key_of
from strategies.searchers.surrogate import GatedProcess, decided, encoded, gates_of
from strategies.shares import every_option
from supernets.device_cost import features

LEAST = 0.01  # added to errors before their logarithm
PREFERENCES = 2  # error and latency
REFERENCES = 10  # random architectures whose latencies describe a device to the network
WIDTH = 64  # of the network's two hidden layers
LR = 3e-3  # of Adam
BATCH = 64  # preferences and devices per step
CANDIDATES = 20  # preferences and devices whose gates are compared per question
ENTROPY = 0.03  # weight of the gates' entropy


class Pareto(OnDevices):
    """Trains a preference network against all scores, asks for what its gates favour, and ends with
    a front per device. `alpha_lr_scale` is unused.

    For preference r = (r_1, r_2) the gates minimise r_1 E + r_2 L - ENTROPY * H: E is the expected
    log error by the surrogate, L the expected latency by the device's sum over options, both 0 and
    1 at the ends of the device's present front, and H the entropy of the gates, without which they
    saturate at one architecture for all preferences.

    The first `initial` architectures are random. Every `period` scores the surrogate is fitted
    again, and the network takes `steps` steps. Then preferences and devices are drawn; of the
    strongest gates, a sample and mutations of each, the new architecture is asked for that would
    add the largest hypervolume on all devices, by exact latencies and the surrogate's errors.

    Args:
        table, devices: the latencies and their columns (None: all); None counts
            multiply-accumulates.
    """

    @checked
    def __init__(
        self,
        space: Space,
        alpha_lr_scale: float | None = None,
        asks: Count | None = None,
        table: str | None = None,
        devices: Sequence[str] | None = None,
        initial: Count = 50,
        period: Count = 25,
        steps: Count = 100,
    ):
        super().__init__(space, asks, table, devices)
        self.initial, self.period, self.steps = initial, period, steps
        self.generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        measured = [self.draws.architecture(self.draws.answer()) for _ in range(REFERENCES)]
        self.features = features(measured, list(self.costs.values()))  # (D, F)
        inputs = PREFERENCES + self.features.size(1)
        self.net = PreferenceNetwork(space.choices, inputs, WIDTH)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=LR)
        self.prices = {
            name: torch.stack([cost.options.tables[name] for cost in self.costs.values()])
            for name in space.choices
        }  # (D, R, O)
        self.fitted = 0  # of `known`, when the network was trained last

    def ask(self) -> Architecture:
        """A random architecture, or what the gates of a drawn preference and device favour."""
        if len(self.known) < self.initial:
            return self.new()
        if not self.fitted or len(self.known) - self.fitted >= self.period:
            self.fitted = len(self.known)
            self._fit()
            self._train()
        return self._favoured()

    def _favoured(self) -> Architecture:
        """Of new architectures that gates favour, the one with the largest gain of hypervolume."""
        found = self._candidates()
        if not found:
            return self.new()
        return Architecture.of(self.space, found[int(self._gains(found).argmax())])

    def _candidates(self) -> list[Kept]:
        """What was not told: for drawn preferences and devices the strongest gates, a sample of
        them, and a mutation of both."""
        tried: list[Kept] = []
        for gates in self._gates(CANDIDATES):
            noisy = {name: self._noisy(one) for name, one in gates.items()}
            tried += [self._kept(gates), self._kept(noisy)]
        tried += [self.draws.mutated(self.draws.of(kept)).kept for kept in tried]
        new = {key_of(kept): kept for kept in tried if self._connects(kept)}
        return [kept for key, kept in new.items() if key not in self.keys]

    def _gains(self, found: list[Kept]) -> np.ndarray:
        """(N,): the hypervolume that architectures would add on all devices, by exact latencies and
        the surrogate's errors; each device's costs are scaled by the range of what is known."""
        with torch.no_grad():
            errors = self.surrogate(decided(self.space, found)).exp().numpy() - LEAST
        asked = [Architecture.of(self.space, kept) for kept in found]
        total = np.zeros(len(found))
        for name, cost in self.costs.items():
            points = self.points(name)
            span = np.maximum(np.ptp(points, 0), 1e-12)
            new = np.column_stack([[cost.exact(one) for one in asked], errors])
            total += gains(new / span, points / span)
        return total

    def _connects(self, kept: Kept) -> bool:
        choices = self.space.choices
        return all(choice.connects(kept[name]) for name, choice in choices.items())

    def _noisy(self, gates: Tensor) -> Tensor:
        """Gates times exponentiated Gumbel noise: the strongest one is a draw by the gates."""
        return gates / torch.rand(gates.shape, generator=self.generator).log().neg()

    def _kept(self, gates: Mapping[str, Tensor]) -> Kept:
        """The strongest rows and options of gates (R, O)."""
        choices = self.space.choices
        return {n: strongest(c, gates[n], None, every_option(c)) for n, c in choices.items()}

    def _drawn(self, count: int) -> tuple[Tensor, Tensor]:
        """Preferences (count, 2) from the simplex, and devices (count,)."""
        preference = simplex(count, PREFERENCES, self.generator)
        return preference, torch.randint(len(self.costs), (count,), generator=self.generator)

    @torch.no_grad()
    def _gates(self, count: int) -> list[dict[str, Tensor]]:
        """For drawn preferences and devices: choice -> gates (R, O)."""
        gates = self._expected(*self._drawn(count))
        return [{name: table[i] for name, table in gates.items()} for i in range(count)]

    def _expected(self, preference: Tensor, device: Tensor) -> dict[str, Tensor]:
        """Choice -> probabilities of options (B, R, O)."""
        alphas = self.net(preference, self.features[device])
        return {name: marginals(alphas[name], c) for name, c in self.space.choices.items()}

    def _fit(self) -> None:
        """Fits the surrogate to the first `fitted` scores, and finds the ends of their fronts."""
        known = self.known[: self.fitted]
        errors = torch.tensor([math.log(LEAST + 1 - one.score) for one in known]).double()
        self.surrogate = GatedProcess(encoded(self.space, [one.kept for one in known]), errors)
        ends = [self._ends(name, errors) for name in self.costs]
        self.ideal, nadir = (torch.tensor(side).double() for side in zip(*ends, strict=True))
        self.span = (nadir - self.ideal).clamp_min(1e-9)  # (D, 2)

    def _train(self) -> None:
        """Trains the network on the surrogate and the sums over options."""
        for _ in range(self.steps):
            preference, device = self._drawn(BATCH)
            gates = self._expected(preference, device)
            errors = self.surrogate(gates_of(self.space, gates))
            costs = torch.stack([errors, self._latency(gates, device)], 1)
            losses = (costs - self.ideal[device]) / self.span[device]
            self.optimizer.zero_grad()
            (preference * losses).sum(1).sub(ENTROPY * entropy(gates)).mean().backward()
            self.optimizer.step()

    def _ends(self, device: str, errors: Tensor) -> tuple[list[float], list[float]]:
        """The smallest and the largest log error and latency on the device's present front."""
        points = self.points(device)[: self.fitted]
        kept = front(points)
        first, last = kept[0], kept[-1]  # the fastest, and the most accurate
        ideal = [float(errors[last]), float(points[first, 0])]
        return ideal, [float(errors[first]), float(points[last, 0])]

    def _latency(self, gates: Mapping[str, Tensor], device: Tensor) -> Tensor:
        """The expected cost (B,) on devices (B,), by the sums over options."""
        fixed = torch.tensor([cost.options.fixed for cost in self.costs.values()]).double()
        parts = [(gates[n] * prices[device]).sum((1, 2)) for n, prices in self.prices.items()]
        return fixed[device] + torch.stack(parts).sum(0)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {
            "generator": self.generator.get_state(),
            "features": self.features,
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "fitted": self.fitted,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.generator.set_state(state["generator"])
        self.features = state["features"]
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.fitted = int(state["fitted"])
        if self.fitted:
            self._fit()


def entropy(gates: Mapping[str, Tensor]) -> Tensor:
    """(B,): the sum of the entropies of all rows, for probabilities (B, R, O)."""
    parts = [-(p * p.clamp_min(1e-12).log()).sum((1, 2)) for p in gates.values()]
    return torch.stack(parts).sum(0)
