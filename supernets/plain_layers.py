"""Layers whose passes read tensors alone, and what the others say of theirs.

A pass that is captured once and replayed (`archsmith/train/replay.py`) computes again what is
computed on tensors; a Python value that a layer reads would stay what it was.
"""

from collections.abc import Hashable

from torch import nn

from search_spaces.ops import (
    AvgPool,
    FactorizedReduce,
    MBConv,
    Noise,
    Pool,
    ReLUConvBN,
    ResizablePool,
    SepConv,
    SharpSepConv,
    Skip,
    Zero,
)
from supernets.conv_macro import FinalConvStack, SuperConvStack
from supernets.entangled import (
    EntangledBatchNorm2d,
    EntangledConv2d,
    EntangledLayerNorm,
    EntangledLinear,
)
from supernets.entangled_op import EntangledOp, Kind
from supernets.final import ChosenOps
from supernets.hypercuboid import FinalChain, GridLayer, Hypercuboid
from supernets.mixed_op import MixedOp, PartialMixedOp
from supernets.network import CellModule, CellNetwork
from supernets.one_path import OnePathOp
from supernets.plain_transformer import Attention, Block, Mlp
from supernets.resnet import BasicBlock
from supernets.resnets import FinalResNet
from supernets.skeleton import AuxiliaryHead, ResidualBlock
from supernets.super_kernel import Half, SuperKernelOp
from supernets.transformer import (
    FinalImage,
    FinalText,
    SuperAttention,
    SuperBlock,
    SuperImage,
    SuperMlp,
    SuperText,
)

# The probability of drop-path that cells and `ChosenOps` read is the matter of who sets it.
PLAIN = frozenset(
    {
        *(AuxiliaryHead, AvgPool, CellModule, CellNetwork, EntangledBatchNorm2d, EntangledConv2d),
        *(
            EntangledLayerNorm,
            EntangledLinear,
            EntangledOp,
            FactorizedReduce,
            GridLayer,
            Half,
            Hypercuboid,
            Kind,
        ),
        *(MBConv, MixedOp, Noise, OnePathOp, PartialMixedOp, Pool, ReLUConvBN, ResidualBlock),
        *(ResizablePool, SepConv, SharpSepConv, Skip, SuperAttention, SuperBlock),
        *(SuperConvStack, SuperImage, SuperKernelOp, SuperMlp, SuperText, Zero),
        # of final networks
        *(Attention, BasicBlock, Block, ChosenOps, FinalChain, FinalConvStack, FinalImage),
        *(FinalResNet, FinalText, Mlp),
    }
)


def reads_tensors_alone(layer: nn.Module) -> bool:
    """Whether a layer is of torch or of a class in `PLAIN`; a subclass of these may do anything."""
    kind = type(layer)
    return kind in PLAIN or kind.__module__.partition(".")[0] == "torch"


def constants(layer: nn.Module) -> Hashable | None:
    """The Python values that the pass of another layer reads: what its class says by a method of
    this name; None, not known, where it has none of its own."""
    own = vars(type(layer)).get("constants")
    return None if own is None else own(layer)
