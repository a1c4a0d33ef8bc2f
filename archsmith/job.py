"""Everything a run consists of, as plain objects built from the configuration."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from archsmith.data.benchmark import Benchmark
from archsmith.data.roles import Data
from archsmith.parallel.distributed import size
from archsmith.result.baseline import Baseline
from archsmith.result.limits import Budget
from archsmith.result.recipe import Recipe
from archsmith.search.settings import SearchSettings
from archsmith.train.replay import Replay, cuda_capture
from archsmith.train.runtime import PRECISIONS, Computing, Runtime
from search_spaces.architecture import Architecture
from search_spaces.settings import setting
from search_spaces.space import Space
from supernets.forms import use_form
from supernets.network import Network, supernet


@dataclass(frozen=True)
class Job:
    """All that a run needs, as plain objects.

    `space` has the data's shapes; `strategy` builds a strategy for a space; `settings` is the
    resolved configuration that identifies finished phases and checkpoints. `architecture` is set if
    the run does not search, with its `weights` file, if any.
    """

    names: dict[str, str]  # chosen names of strategy, space and data
    settings: dict[str, Any]
    folder: Path
    resume: str  # auto, never or force
    checkpoint_seconds: float
    seed: int
    device: torch.device
    runtime: Runtime  # device settings and the form of the networks
    data: Data
    fingerprint: str | None  # of the images; None if unknown and not needed (an export)
    space: Space
    strategy: Callable[[Space], Any]
    search: SearchSettings
    recipe: Recipe
    formats: Sequence[str]
    benchmark: Benchmark
    budget: Budget
    baseline: Baseline | None
    loggers: Sequence[str] = ()  # names in `archsmith/loggers/start.py`
    architecture: Architecture | None = None
    weights: Path | None = None
    measures_latency: bool = False  # whether an export times the network

    @property
    def form(self) -> str:
        """The form in which the run's networks compute."""
        if size() > 1 and self.runtime.sync_batch_norm and self.runtime.form != "reference":
            return "fused"  # the native kernels contain their own batch norms
        return self.runtime.form

    @property
    def computing(self) -> Computing:
        """How the run's final networks compute."""
        alone = size() == 1 or not self.runtime.sync_batch_norm
        graphs = alone and self.runtime.captures(self.device)
        return Computing(self.form, self.device, self.runtime.channels_last, graphs)

    def network(self, strategy: Any) -> Network:
        """The supernet that a strategy searches, on torch's default device and not set up."""
        with setting("strategy.mixed_op"):
            return supernet(self.space, strategy.mixed_op)

    def supernet(self, strategy: Any) -> Network:
        """The supernet that a strategy searches, on the device and in the configured form.

        Also sets the strategy up for it. Raises ValueError if the two are incompatible.
        """
        net = self.network(strategy).to(self.device)
        with setting("runtime"):
            use_form(net, self.form, self.device, channels_last=self.runtime.channels_last)
        net.checkpoint_cells = self.runtime.checkpoint_cells
        net.autocast = PRECISIONS[self.search.precision]
        with setting("strategy"):
            strategy.setup(net, self.device)
        apart = strategy.averages and not self.runtime.sync_batch_norm
        if self.runtime.graphs is True and size() > 1 and not apart:
            raise ValueError(
                f"runtime.graphs: passes of {size()} processes exchange values here, because "
                "runtime.sync_batch_norm is set, or the update or a loss needs all images; set it "
                "to auto"
            )
        if self.runtime.captures(self.device) and (size() == 1 or apart):
            strategy.gradients = Replay(strategy, net, cuda_capture)
        return net
