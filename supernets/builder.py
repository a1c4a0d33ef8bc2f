"""How a family of spaces makes networks: each space names the builder of its family."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.space import Space

if TYPE_CHECKING:
    from supernets.network import Network


class Blueprint(NamedTuple):
    """A final network as data, from which an export writes it: `network(layout, operations,
    **parts)`; `network(layout, **parts)` where operations are None.

    network: a class in a module that needs only torch. layout: numbers, strings and containers.
    operations: names of the space's operations. parts: keyword -> class or function.
    """

    network: type[nn.Module]
    layout: Mapping[str, Any]
    operations: Sequence[str] | None = None
    parts: Mapping[str, Callable[..., Any]] = {}


class Builder(ABC):
    """Makes supernets and final networks of the spaces of one family. It has no state."""

    @abstractmethod
    def supernet(
        self, space: Any, mixed_op: Callable[..., nn.Module], *, affine: bool
    ) -> "Network":
        """The network in which every row mixes its options, see `supernets.network.supernet`."""

    @abstractmethod
    def final(self, space: Any, architecture: Architecture, *, auxiliary: bool) -> "Network":
        """The untrained network of an architecture that fits the space. Raises ValueError if there
        is no such network, or none with an auxiliary head."""

    @abstractmethod
    def blueprint(self, space: Any, architecture: Architecture) -> Blueprint:
        """The same network as data."""

    def inherited(self, space: Any, architecture: Architecture) -> dict[str, Tensor]:
        """The weights that a final network starts from, where `Space.trained`."""
        raise NotImplementedError

    def counts(self, space: Any, options: Mapping[str, Sequence[int]]) -> dict[str, int]:
        """`params` and `macs` of a final network, where `Space.costs_rise`. options: choice -> the
        position of each row's option."""
        raise NotImplementedError

    def bare(self, space: Any) -> "Network":
        """A final network whose rows compute nothing: its fixed parts. For families in which the
        costs of options add up (`Space.costs_add_up`)."""
        raise NotImplementedError


def builder_of(space: Space) -> Builder:
    """The builder that the space names, `"module:class"`."""
    builder: Builder = resolve_name(space.builder)()
    return builder
