"""`hydra/sweeper=nni`: a sweep whose runs are proposed by one of NNI's tuners.

Hydra imports this file for every command in the environment: it must import fast and never fail.
"""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class NNISweeperConf:
    """The settings of `hydra.sweeper`."""

    _target_: str = "hydra_plugins.archsmith_nni_sweeper.nni_sweeper.NNISweeper"
    tuner: str = "tpe"  # tpe, evolution, random, grid
    direction: str = "maximize"  # maximize, minimize: the accuracy that `run.py` returns
    n_trials: int = 20
    n_jobs: int = 1  # proposed at once, then run by the launcher
    seed: int | None = 0  # for tpe and random; the others cannot be seeded
    tuner_args: dict[str, Any] = field(default_factory=dict)


class NNISweeper(Sweeper):
    """Proposes runs, launches them in batches and reports to the tuner; see `tuning.optimise`."""

    def __init__(self, **settings: Any):
        """Takes the settings of `NNISweeperConf`, as attributes."""
        vars(self).update(settings)

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        from hydra.core.plugins import Plugins

        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        from hydra_plugins.archsmith_nni_sweeper.tuning import optimise

        optimise(self, arguments)


ConfigStore.instance().store(
    group="hydra/sweeper", name="nni", node=NNISweeperConf, provider="archsmith"
)
