"""A preference between accuracy and latency, and a device, drawn in each step.

MODNAS's (Sukthanker et al. 2025, arXiv:2402.18213; the abstract was at hand): one supernet, one
network that gives the architecture parameters for a preference and for features of a device, and
preferences and devices drawn during the search. Ours: the form of the network, that it shifts the
alphas of any strategy, and latencies by tables (MODNAS learns a predictor of them).
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from search_spaces.architecture import Architecture
from search_spaces.settings import Count
from search_spaces.space import Space
from strategies.contracts import Preference
from strategies.discretisation.constrained import cheapest
from strategies.discretisation.decisions import Structure
from strategies.preference.network import PreferenceNetwork, simplex
from strategies.searchers.encoding import Draws
from strategies.shares import weighed
from supernets.device_cost import DeviceCost, device_costs, features
from supernets.final_costs import total

if TYPE_CHECKING:
    from strategies.strategy import Strategy
    from supernets.mixture import Mixture
    from supernets.network import Network

LOSSES = 2  # error and latency


class DevicePreference(Preference):
    """Alphas are shifted by a network of the preference (2,) and the device; both are drawn anew in
    every step, preferences from the simplex. What is measured after an epoch has equal preferences
    and the first device. At the end, the architectures of `grid` preferences for each device are
    kept.

    Args:
        table, devices: latencies and their columns (None: all), as `device_costs` takes them; None
            counts multiply-accumulates.
        references: random architectures whose latencies describe a device to the network.
        width: of its hidden layers.

    Raises:
        ValueError: as `device_costs`.
    """

    def __init__(
        self,
        *,
        table: str | None,
        devices: Sequence[str] | None,
        references: Count,
        width: Count,
        grid: Count,
    ):
        super().__init__()
        self.table, self.devices = table, devices
        self.references, self.width, self.grid = references, width, grid
        self.generator = torch.Generator()

    def build(self, space: Space) -> None:
        draws = Draws(space)
        measured = [draws.architecture(draws.answer()) for _ in range(self.references)]
        self.costs: dict[str, DeviceCost] = device_costs(space, self.table, self.devices)
        self.of_devices: Tensor
        self.register_buffer("of_devices", features(measured, list(self.costs.values())))
        self.drawn: Tensor  # (2,)
        self.register_buffer("drawn", torch.full((LOSSES,), 1 / LOSSES))
        self.place: Tensor  # of the device, (1,)
        self.register_buffer("place", torch.zeros(1, dtype=torch.long))
        self.net = PreferenceNetwork(space.choices, LOSSES + self.of_devices.size(1), self.width)
        self.generator.manual_seed(int(torch.randint(2**62, ())))

    def setup(self, net: "Network", strategy: "Strategy") -> None:
        self.strategy, space = strategy, strategy.space
        device = next(net.parameters()).device
        ends = [_ends(cost.options.tables, space) for cost in self.costs.values()]
        self.least, self.most = (torch.tensor(side).to(device) for side in zip(*ends, strict=True))
        self.prices = {
            name: torch.stack([cost.options.tables[name] for cost in self.costs.values()])
            .float()
            .to(device)
            for name in space.choices
        }  # (D, R, O)

    def shift(self, name: str) -> Tensor:
        found: Tensor = self.net(self.drawn[None], self.of_devices[self.place])[name][0]
        return found

    def constants(self) -> Hashable:
        return ()

    def latency(self, mixture: "Mixture") -> Tensor:
        """The expected cost on the drawn device, 0-dim: 0 for the cheapest architecture, 1 for the
        dearest, by the sum over options of all rows that run: where rows compete, more than 1."""
        parts = [
            (weighed(group.gates, group.factors) * self.prices[name][self.place]).sum()
            for name, group in mixture.groups.items()
        ]
        least, most = self.least[self.place], self.most[self.place]
        return ((torch.stack(parts).sum() - least) / (most - least).clamp_min(1e-12))[0]

    def choose(self, preference: Sequence[float], place: int) -> None:
        """Sets the preference (2,) and the position of the device."""
        self.drawn.copy_(torch.tensor(preference))
        self.place.fill_(place)

    def before_step(self, progress: float) -> None:
        drawn = simplex(1, LOSSES, self.generator)[0]
        self.drawn.copy_(drawn)
        self.place.copy_(torch.randint(len(self.costs), (1,), generator=self.generator))

    def epoch_end(
        self, net: "Network", strategy: "Strategy", loaders: Any, progress: float
    ) -> None:
        self.choose([1 / LOSSES] * LOSSES, 0)

    def keep(self, found: Architecture, *, last: bool) -> list[Architecture]:
        if not last:
            return []
        kept: dict[str, Architecture] = {}
        for place in range(len(self.costs)):
            for latency in torch.linspace(0, 1, self.grid).tolist():
                self.choose([1 - latency, latency], place)
                one = self.strategy.architecture()
                kept.setdefault(one.identity, one)
        self.choose([1 / LOSSES] * LOSSES, 0)
        return list(kept.values())

    def get_extra_state(self) -> Tensor:
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        self.generator.set_state(state.cpu())


def _ends(tables: Mapping[str, Tensor], space: Space) -> tuple[float, float]:
    """The costs of the cheapest and of the dearest architecture, without fixed parts."""
    structures = {name: Structure.of_space(choice) for name, choice in space.choices.items()}
    negative = {name: -table for name, table in tables.items()}
    ends = [cheapest(space.choices, structures, one) for one in (tables, negative)]
    low, high = (total(Architecture.of(space, kept), space, tables) for kept in ends)
    return low, high
