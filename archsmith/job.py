"""What a run is made of, as plain objects: the configuration's other side."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from archsmith.data.benchmark import Benchmark
from archsmith.data.sets import Data
from archsmith.parallel.distributed import size
from archsmith.result.baseline import Baseline
from archsmith.result.limits import Budget
from archsmith.result.recipe import Recipe
from archsmith.search.settings import SearchSettings
from archsmith.train.runtime import PRECISIONS, Runtime
from search_spaces.architecture import Architecture
from search_spaces.space import Space
from strategies.replay import Replay, cuda_capture
from supernets.forms import use_form
from supernets.network import Network, supernet


@dataclass(frozen=True)
class Job:
    """All a run needs, as plain objects.

    `space` has the shapes of the data; `strategy` makes a strategy for a space; `settings` is the
    resolved configuration, by which finished phases and checkpoints are recognised. `architecture`
    is given where the run does not search, with the `weights` file that belongs to it, if any.
    """

    names: dict[str, str]  # strategy, space, data: the chosen names
    settings: dict[str, Any]
    folder: Path
    resume: str  # auto, never or force
    checkpoint_seconds: float
    seed: int
    device: torch.device
    runtime: Runtime  # how networks compute
    data: Data
    fingerprint: str | None  # of the images; None: not known, and not needed (an export)
    space: Space
    strategy: Callable[[Space], Any]
    search: SearchSettings
    recipe: Recipe
    formats: Sequence[str]
    benchmark: Benchmark
    budget: Budget
    baseline: Baseline | None
    architecture: Architecture | None = None
    weights: Path | None = None

    @property
    def form(self) -> str:
        """The form of all networks that a run trains or evaluates."""
        if size() > 1 and self.runtime.form != "reference":
            return "fused"  # the native kernels have batch norms of their own
        return self.runtime.form

    def supernet(self, strategy: Any) -> Network:
        """The supernet that a strategy searches, on the device, in the form that was asked for.

        The strategy is set up for it. Raises ValueError where the two do not fit.
        """
        net = supernet(self.space, strategy.mixed_op).to(self.device)
        use_form(net, self.form, self.device, channels_last=self.runtime.channels_last)
        net.checkpoint_cells = self.runtime.checkpoint_cells
        net.autocast = PRECISIONS[self.search.precision]
        strategy.setup(net, self.device)
        if self.runtime.graphs is True and size() > 1:
            raise ValueError(
                f"runtime.graphs: not with several processes, found {size()}; set it to auto"
            )
        if self.runtime.captures(self.device) and size() == 1:
            strategy.gradients = Replay(strategy, net, cuda_capture)
        return net
