"""What the ingredients of a strategy are: one base class, and a contract for each kind.

`Ingredient` has every hook of the life cycle, and each does nothing: an ingredient overrides those
it needs. `Strategy` calls the hooks of all ingredients, in the order of `Strategy.ingredients`.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.space import Cell

if TYPE_CHECKING:
    from strategies.gradients import Batch, Metrics
    from strategies.strategy import Logits, Strategy
    from supernets.mixture import Mixture
    from supernets.network import Network


class Ingredient:
    """The base of every ingredient: hooks that do nothing, no state, and unknown constants.

    `constants` is not inherited: a subclass that does not define the method itself has that of this
    class, which answers None, because a parent cannot know what its subclass reads.

    An ingredient that is a module names `nn.Module` first, `class Mine(nn.Module, LossTerm)`, so
    that `state_dict` is the module's; `Relaxation` and `EdgeNormalisation` are modules already.

    A ValueError of `__init__`, `setup` or `epoch_end` starts with the name of its parameter,
    "weight: expected ..."; the path of the setting is put before it (`strategies.settings`).

    Raises:
        TypeError: a class that names `nn.Module` after an ingredient, when it is defined.
    """

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        parents = cls.__mro__
        if nn.Module in parents and parents.index(nn.Module) > parents.index(Ingredient):
            raise TypeError(f"{cls.__name__}: name nn.Module as the first of its base classes")
        if "constants" not in vars(cls):
            cls.constants = Ingredient.constants  # type: ignore[method-assign]

    def setup(self, net: "Network", strategy: "Strategy") -> None:
        """Called once, before a search or before its state is loaded; optimisers exist, and
        supernet and alphas are on their device. Raises ValueError where the ingredient does not
        fit the strategy or the space."""
        return

    def epoch_start(self, epoch: int, epochs: float) -> None:
        """Called before the steps of an epoch (from 0) of so many, and again where a run resumes
        inside it."""
        return

    def before_step(self, progress: float) -> None:
        """Called before each step; progress is the share of the search that is done, in [0, 1)."""
        return

    def after_step(self, net: "Network", strategy: "Strategy") -> None:
        """Called after each step of the update."""
        return

    def epoch_end(
        self, net: "Network", strategy: "Strategy", loaders: Any, progress: float
    ) -> bool | None:
        """Called after each epoch; True ends the search here.

        loaders: has the batches of both roles, `train` and `val`. progress: in (0, 1].
        """
        return None

    def keep(self, found: Architecture, *, last: bool) -> list[Architecture]:
        """Architectures to keep on the way, after an epoch that ended with `found`; `last` says
        that the search is over."""
        return []

    def constants(self) -> Hashable | None:
        """The Python values that its part of a pass reads and that may change: `()` where there are
        none, None where they are not known.

        Settings, and tensors that are changed in place, do not count. A pass is captured as a graph
        only where all values are known, and captured anew when one changes.
        """
        return None

    def state_dict(self) -> dict[str, Any] | None:
        """What a resumed search needs, tensors and plain values; None (always) for an ingredient
        without state, which then has no entry in a checkpoint."""
        return None

    def load_state_dict(self, state: Mapping[str, Any], /) -> object:
        """The inverse of `state_dict`, called after `setup`."""
        return None


class Relaxation(nn.Module, Ingredient, ABC):
    """Turns alphas into gates. Where it draws them it draws nothing in `eval` mode, by which the
    search measures the supernet."""

    samples: bool = False  # whether gates of two passes differ

    @abstractmethod
    def forward(self, alphas: Tensor, alive: Tensor) -> tuple[Tensor, Tensor | None]:
        """Alphas (E, O) and alive (E, O) bool -> gates (E, O), exactly 0 where a candidate is not
        alive, and the index (E,) of the only candidate that runs on each edge; None: all run."""

    def expected(self, alphas: Tensor, alive: Tensor) -> tuple[Tensor, Tensor | None]:
        """The gates by which the architecture is read, shapes as in `forward`: without noise."""
        return self(alphas, alive)


class EdgeNormalisation(nn.Module, Ingredient, ABC):
    """Weighs the edges into a node against each other."""

    @abstractmethod
    def forward(self, beta: Tensor, cell: Cell, alive: Tensor) -> Tensor:
        """Betas (E,) and alive edges (E,) bool -> factors (E,), exactly 0 for a dead edge."""


class Update(Ingredient, ABC):
    """One step of weights and alphas."""

    two_level: bool = True  # whether alphas descend on images of their own, the val images

    @abstractmethod
    def step(
        self,
        strategy: "Strategy",
        net: "Network",
        train: "Batch",
        val: "Batch | None",
        *,
        move_alphas: bool,
    ) -> "Metrics":
        """Updates in place, by the strategy's optimisers; returns 0-dim tensors to log.

        val: a batch where `two_level`, else None. move_alphas: False during the warm-up.
        """


class LossTerm(Ingredient, ABC):
    """A term of the loss, beside the cross-entropy."""

    roles: tuple[str, ...] = ("train", "val")  # beside the loss of which batches

    @abstractmethod
    def __call__(self, net: "Logits", batch: "Batch", logits: Tensor, mixture: "Mixture") -> Tensor:
        """The term, 0-dim, for the logits (B, classes) that a supernet of this mixture gave."""


class Pruning(Ingredient):
    """Switches candidates off for good, by `Strategy.prune`, in `setup` or `epoch_end`."""


class Stopping(Ingredient):
    """Ends the search before its last epoch, by True from `epoch_end`."""


class DiscretisationRule(Protocol):
    """Reads a discrete cell from gates. A function; it has no state and no hooks."""

    def __call__(
        self, cell: Cell, gates: Tensor, alive: Tensor, /
    ) -> Mapping[str, tuple[str, ...]]:
        """gates (E, O) and alive (E, O) bool -> the candidates kept on each edge, by its name; an
        edge that is left out is dropped. Raises ValueError where nothing alive can be read."""
        ...


def check_kind(name: str, part: object, kind: type[Ingredient]) -> None:
    """Raises ValueError, which names the setting, for an object that is no ingredient of a kind."""
    if not isinstance(part, kind):
        found = type(part)
        raise ValueError(
            f"strategy.{name}: expected a class derived from {kind.__module__}.{kind.__name__}, "
            f"found {found.__module__}.{found.__qualname__}"
        )
