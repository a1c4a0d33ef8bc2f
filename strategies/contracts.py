"""The ingredients of a strategy: one base class, and a contract for each kind.

`Ingredient` defines every hook of the life cycle as a no-op; an ingredient overrides those it
needs. `Strategy` calls the hooks of all ingredients, in the order of `Strategy.ingredients`.
"""

import typing
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.choice import Choice
from search_spaces.settings import checked
from search_spaces.space import Space

if TYPE_CHECKING:
    from strategies.gradients import Batch, Metrics
    from strategies.strategy import Logits, Strategy
    from supernets.mixture import Mixture
    from supernets.network import Network


class Ingredient:
    """The base class of every ingredient: no-op hooks, no state, and unknown constants.

    `constants` is not inherited: a subclass that does not define it gets the method of this class,
    which returns None, because a parent cannot know what its subclass reads. Nor is `averages`.

    An ingredient that is a module lists `nn.Module` first, `class Mine(nn.Module, LossTerm)`, so
    that it gets the module's `state_dict`; `Relaxation` and `Topology` are modules
    already.

    Arguments of `__init__` are checked against its annotations, `weight: NotNegative`. An error
    that it, `setup` or `epoch_end` raises itself starts with the name of the parameter,
    "ramp: expected ..."; the setting's path is prepended (`search_spaces.settings`).

    Raises:
        TypeError: at class definition, if a class lists `nn.Module` after an ingredient.
    """

    may_return: bool = False  # whether the search keeps the state of each epoch to return to
    # Of an update or a loss: whether what it computes in a pass is a mean over images (or does not
    # depend on them), so that of a batch it is the mean of those of equal parts, as are gradients.
    averages: bool = False

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        parents = cls.__mro__
        if nn.Module in parents and parents.index(nn.Module) > parents.index(Ingredient):
            raise TypeError(f"{cls.__name__}: name nn.Module as the first of its base classes")
        if "__init__" in vars(cls):
            cls.__init__ = checked(cls.__init__)  # type: ignore[method-assign]
        if "constants" not in vars(cls):
            cls.constants = Ingredient.constants  # type: ignore[method-assign]
        if "averages" not in vars(cls):
            cls.averages = False

    def setup(self, net: "Network", strategy: "Strategy") -> None:
        """Called once, before a search or before its state is loaded; optimisers exist, and
        supernet and alphas are on their device. Raises ValueError if the ingredient does not fit
        strategy or space."""
        return

    def epoch_start(self, epoch: int, epochs: float) -> None:
        """Called before the first step of an epoch (from 0, of `epochs`), and again if a run
        resumes inside it."""
        return

    def before_step(self, progress: float) -> None:
        """Called before each step; progress is the completed share of the search, in [0, 1)."""
        return

    def after_step(self, net: "Network", strategy: "Strategy") -> None:
        """Called after each update step."""
        return

    def epoch_end(
        self, net: "Network", strategy: "Strategy", loaders: Any, progress: float
    ) -> bool | None:
        """Called after each epoch; True ends the search here.

        loaders: the loaders of both roles, `train` and `val`, and `held_out()`, a pass over the
            val images as they are. progress: in (0, 1].
        """
        return None

    def keep(self, found: Architecture, *, last: bool) -> list[Architecture]:
        """Architectures to keep after an epoch that ended with `found`; `last` means that the
        search is over."""
        return []

    def returns_to(self) -> int | None:
        """The epoch (from 0) to whose end the search returns, asked after each epoch but the last;
        None to go on. Only for an ingredient with `may_return`."""
        return None

    def returned(self, strategy: "Strategy") -> None:
        """Called when the state of that epoch is loaded into everything, this ingredient
        included."""
        return

    def result(self) -> int | None:
        """The epoch (from 0) whose architecture is the result of the search that has ended; None
        for the last one. Of several ingredients the earliest counts."""
        return None

    def costs_of(self, found: Architecture) -> dict[str, float]:
        """Costs of the architecture that a search found, by name, for the record of the run."""
        return {}

    def constants(self) -> Hashable | None:
        """The changeable Python values that this ingredient reads in a pass: `()` if there are
        none, None if they are unknown.

        Settings, and tensors that are changed in place, do not count. A pass is captured as a CUDA
        graph only if all values are known, and captured again when one changes.
        """
        return None

    def state_dict(self) -> dict[str, Any] | None:
        """What a resumed search needs, as tensors and plain values; always None for an ingredient
        without state, which has no entry in a checkpoint."""
        return None

    def load_state_dict(self, state: Mapping[str, Any], /) -> object:
        """The inverse of `state_dict`, called after `setup`."""
        return None


class Relaxation(nn.Module, Ingredient, ABC):
    """Turns alphas into gates. If it samples, it must not sample in `eval` mode, in which the
    search measures the supernet."""

    samples: bool = False  # whether the gates of two passes differ

    @abstractmethod
    def forward(self, alphas: Tensor, alive: Tensor) -> tuple[Tensor, Tensor | None]:
        """Alphas (R, O) and alive (R, O) bool -> gates (R, O), exactly 0 for an option that is not
        alive, and the index (R,) of the only option that runs in each row, or (R, K) of K; None if
        all run."""

    def of_choice(
        self, alphas: Tensor, alive: Tensor, choice: Choice
    ) -> tuple[Tensor, Tensor | None]:
        """As `forward`, for this choice; overridden where choices are relaxed differently."""
        found: tuple[Tensor, Tensor | None] = self(alphas, alive)
        return found

    def expected(self, alphas: Tensor, alive: Tensor) -> tuple[Tensor, Tensor | None]:
        """The noise-free gates that the architecture is read from; shapes as in `forward`."""
        return self(alphas, alive)


class Topology(nn.Module, Ingredient, ABC):
    """Weighs the rows into a target against each other, and says which of them run: the edges into
    a node. If it samples, it must not sample in `eval` mode."""

    samples: bool = False  # whether two passes differ

    @abstractmethod
    def forward(
        self, beta: Tensor, choice: Choice, alive: Tensor
    ) -> tuple[Tensor, Sequence[bool] | None]:
        """Betas (`size(choice)`,) and alive rows (R,) bool -> factors (R,), exactly 0 for a row
        that is dead or does not run, and which rows run; None if all alive ones do."""

    def expected(self, beta: Tensor, choice: Choice, alive: Tensor) -> Tensor:
        """The noise-free factors (R,) that the architecture is read from."""
        return self(beta, choice, alive)[0]

    def size(self, choice: Choice) -> int:
        """The number of betas of a choice: one per row."""
        return len(choice.rows)


class Update(Ingredient, ABC):
    """One step of weights and alphas."""

    two_level: bool = True  # whether alphas are trained on separate images, the val images
    other_weights: bool = False  # whether a pass runs with other weights than the network's

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
        """Updates in place with the strategy's optimisers; returns 0-dim tensors to log.

        val: a batch if `two_level`, else None. move_alphas: False during the warm-up.
        """


class LossTerm(Ingredient, ABC):
    """A loss term that is added to the cross-entropy."""

    roles: tuple[str, ...] = ("train", "val")  # batches to whose loss it is added

    @abstractmethod
    def __call__(self, net: "Logits", batch: "Batch", logits: Tensor, mixture: "Mixture") -> Tensor:
        """The term, 0-dim, for the logits (B, classes) of a supernet with this mixture."""


class Stage(NamedTuple):
    """The place of an epoch within a stage of the search. Schedules run from the start of a stage
    to its end, and the share of the warm-up is that of a stage."""

    epoch: int  # of the stage, from 0
    epochs: float  # the stage's number
    rate: float = 1.0  # factor on the weights' first learning rate
    warmup: bool = True  # whether the stage has a warm-up


class Pruning(Ingredient):
    """Switches candidates off permanently, by `Strategy.prune`, in `setup` or `epoch_end`."""

    fixed_length: bool = False  # whether it must know the number of epochs from the start

    def stage(self, epoch: int, epochs: float) -> Stage:
        """The stage of an epoch (from 0, of `epochs`); the whole search is one."""
        return Stage(epoch, epochs)


class Stopping(Ingredient):
    """Ends the search early by returning True from `epoch_end`."""


class Regularisation(Ingredient):
    """Disturbs the training of the supernet, in its passes or in its images."""

    def images(self, x: Tensor) -> Tensor:
        """What a step sees in place of the images x (B, C, H, W)."""
        return x


class Preference(nn.Module, Ingredient, ABC):
    """Shifts the alphas by what is preferred now; its parameters are trained with them."""

    @abstractmethod
    def build(self, space: Space) -> None:
        """Called once, before optimisers are made: draws the parameters."""

    @abstractmethod
    def shift(self, name: str) -> Tensor:
        """What is added to the alphas (R, O) of a choice."""


class Schedule(Protocol):
    """The learning rate of an epoch. A function; it has no state and no hooks."""

    def __call__(self, lr: float, min_lr: float, epoch: int, epochs: float, /) -> float:
        """The rate of an epoch (from 0, of `epochs`, whose last one may be short), between the
        first rate `lr` and the last one `min_lr`."""
        ...


class DiscretisationRule(Protocol):
    """Reads a discrete network from gates. A function; it has no state and no hooks."""

    def __call__(
        self, choice: Choice, gates: Tensor, factors: Tensor | None, alive: Tensor, /
    ) -> Mapping[str, tuple[str, ...]]:
        """gates (R, O), factors of rows (R,) or None, alive (R, O) bool -> row name -> options
        kept; missing rows are dropped. Raises ValueError if no alive option can be kept."""
        ...


def kinds_of(strategy: type) -> dict[str, type[Ingredient]]:
    """Setting -> kind of ingredient: the fields of a strategy whose annotation names one, alone, as
    an option or as the values of a mapping."""
    hints = typing.get_type_hints(strategy)
    return {
        name: part
        for name, hint in hints.items()
        for part in (hint, *typing.get_args(hint))
        if isinstance(part, type) and issubclass(part, Ingredient)
    }


def check_kind(name: str, part: object, kind: type[Ingredient]) -> None:
    """Raises ValueError, which names the setting, if an object is not an ingredient of a kind."""
    if not isinstance(part, kind):
        found = type(part)
        raise ValueError(
            f"{name}: expected a class derived from {kind.__module__}.{kind.__name__}, "
            f"found {found.__module__}.{found.__qualname__}"
        )
