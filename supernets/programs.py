"""Builds networks of programs. A program has no supernet."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.language import Layer, Module
from search_spaces.programs import PROGRAM, ProgramSpace
from search_spaces.stems import STEMS
from supernets.builder import Blueprint, Builder
from supernets.layout import channels_first
from supernets.mixture import Mixture
from supernets.network import Network
from supernets.program import FinalProgram, ProgramLayout
from supernets.skeleton import HEADS


class ProgramNetwork(Network, FinalProgram):  # type: ignore[misc]  # a pass also takes a mixture
    """The final network of a program."""

    def __init__(self, space: ProgramSpace, architecture: Architecture):
        self.space = space
        self.auxiliary = None
        super().__init__(layout(space, architecture), **skeleton(space))

    def logits(self, x: Tensor, mixture: Mixture | None) -> Tensor:
        return FinalProgram.forward(self, channels_first(x))


class Programs(Builder):
    """Builds final networks; a supernet is refused."""

    def supernet(
        self, space: ProgramSpace, mixed_op: Callable[..., nn.Module], *, affine: bool
    ) -> Network:
        raise ValueError(f"space {space.name} has no supernet; search it by a searcher")

    def final(
        self, space: ProgramSpace, architecture: Architecture, *, auxiliary: bool
    ) -> ProgramNetwork:
        if auxiliary:
            raise ValueError(
                f"space {space.name} has no auxiliary head; retrain with auxiliary_weight=0.0"
            )
        return ProgramNetwork(space, architecture)

    def blueprint(self, space: ProgramSpace, architecture: Architecture) -> Blueprint:
        return Blueprint(FinalProgram, layout(space, architecture), None, skeleton(space))


def skeleton(space: ProgramSpace) -> dict[str, Callable[..., Any]]:
    """The constructors of the fixed parts."""
    return {"stem": STEMS[space.stem].build, "head": HEADS[space.head]}


def layout(space: ProgramSpace, architecture: Architecture) -> ProgramLayout:
    """The network of an architecture as data."""
    model, _ = space.program.model(architecture.choices[PROGRAM])
    return {
        "image_channels": space.input_shape[0],
        "stem_channels": space.stem_channels,
        "modules": _node(model),
        "classes": space.classes,
    }


def _node(module: Module) -> dict[str, Any]:
    if isinstance(module, Layer):
        return {"kind": module.kind, **module.settings}
    return {"kind": module.kind, "parts": [_node(part) for part in module.parts]}
