"""`hydra/sweeper=nni`: a sweep whose next runs one of NNI's tuners proposes.

Hydra imports this file for every command of the environment: it must stay light, and must not fail.
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
    direction: str = "maximize"  # maximize, minimize: what `run.py` returns, an accuracy
    n_trials: int = 20
    n_jobs: int = 1  # proposed at once, and run by the launcher
    seed: int | None = 0  # of tpe and random; the others cannot be seeded
    tuner_args: dict[str, Any] = field(default_factory=dict)


class NNISweeper(Sweeper):
    """Proposes, runs in batches, tells the tuner what came out; see `tuning.optimise`."""

    def __init__(
        self,
        tuner: str,
        direction: str,
        n_trials: int,
        n_jobs: int,
        seed: int | None,
        tuner_args: dict[str, Any],
    ):
        self.tuner, self.direction, self.tuner_args = tuner, direction, tuner_args
        self.n_trials, self.n_jobs, self.seed = n_trials, n_jobs, seed

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
