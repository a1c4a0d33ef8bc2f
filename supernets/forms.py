"""How a network computes: `reference` edge by edge, or a faster form that gives the same numbers.

A form changes no parameter, no buffer and no name, so weights move between forms, and neither a
strategy nor a space knows which one runs.
"""

from collections.abc import Sequence

import torch
from torch import nn

from supernets.final import ChosenOps
from supernets.fused import FusedCell
from supernets.gpu import launches
from supernets.native.build import library
from supernets.native.cell import NativeCell, twice_differentiable
from supernets.native.final import NativeFinal
from supernets.network import CellModule, Network
from supernets.packed import PackedCell

__all__ = ["FORMS", "check_form", "check_layout", "twice_differentiable", "use_form"]

FORMS = {"reference": None, "fused": FusedCell, "native": NativeCell}
# Of a final network's edges few run the same, so that the fused form has nothing to gain there.
FINAL_FORMS = {"reference": None, "fused": None, "native": NativeFinal}


# How many times faster than the fused form the native one is, by the lanes of a vector (4 with SSE,
# 8 with AVX2, 16 with AVX-512; NEON has 4 and was not measured): the least over the workloads of
# benchmarks/step_time.py whose cells have dense convolutions (NAS-Bench-201), and over the others.
# benchmarks/results.md has the figures with processors and dates. It is a table, and no timing at
# run time, so that the same seed gives the same architecture.
NATIVE_GAIN = {
    4: {"dense": 0.95, "separable": 1.7},
    8: {"dense": 1.8, "separable": 3.2},
    16: {"dense": 1.8, "separable": 3.3},
}


def pays(cells: Sequence[CellModule], device: torch.device) -> bool:
    """Whether `auto` takes the native form: on a CPU, where its kernels can be built and gain."""
    if device.type != "cpu" or (kernels := library()) is None:
        return False
    kind = "dense" if any(map(has_dense, cells)) else "separable"
    return NATIVE_GAIN[kernels.lanes()][kind] > 1.0


def has_dense(cell: CellModule) -> bool:
    """Whether a cell holds convolutions of several taps over all channels."""
    convs = [m for m in cell.edges.modules() if isinstance(m, nn.Conv2d)]
    return any(conv.groups == 1 and conv.kernel_size != (1, 1) for conv in convs)


def check_form(form: str) -> None:
    """Raises ValueError for an unknown form."""
    if form not in ("auto", *FORMS):
        raise ValueError(f"form: expected one of auto, {', '.join(FORMS)}, found {form!r}")


def check_layout(channels_last: bool, device: torch.device) -> None:
    """Raises ValueError for channels last on a CPU."""
    if channels_last and device.type == "cpu":
        raise ValueError(
            "channels_last: needs CUDA, found cpu, where torch's convolutions may then write "
            "outside their memory; set it to false"
        )


def use_form(net: Network, form: str, device: torch.device, *, channels_last: bool = False) -> None:
    """Chooses the form of every cell of a supernet or a final network, from now on.

    `auto` is `native` where that `pays`, else `fused`, which for a final network is the reference.
    On CUDA, where passes may be captured, the probability of drop-path is a tensor. The layout of
    maps in memory is channels first unless `channels_last` asks for the other on CUDA
    (`supernets.layout`). Raises ValueError for an unknown form, for `native` where it cannot be,
    and for `channels_last` on a CPU.
    """
    check_form(form)
    check_layout(channels_last, device)
    if form == "native" and device.type != "cpu":
        raise ValueError(f"form: native needs a CPU, found {device.type}; set it to fused")
    if form == "native" and library() is None:
        raise ValueError(
            "form: native kernels cannot be built here, for the reason that is logged above; mend "
            "that (compiler: CXX; where they are kept: TORCH_EXTENSIONS_DIR), or set it to fused"
        )
    cells = [module for module in net.modules() if isinstance(module, CellModule)]
    if form == "auto":
        form = "native" if pays(cells, device) else "fused"
    final = all(isinstance(edge, ChosenOps) for cell in cells for edge in cell.edges.values())
    chosen = (FINAL_FORMS if final else FORMS)[form]
    if chosen is FusedCell and launches(device):
        chosen = PackedCell
    net.channels_last = channels_last
    net.drop_probability = torch.zeros((), device=device) if device.type == "cuda" else None
    net.cells_channels_last = form == "native"
    for cell in cells:
        cell.form = None if chosen is None else chosen(cell)
