"""How a network computes: `reference` edge by edge, or a faster form that gives the same numbers.

A form changes no parameter, no buffer and no name, so weights move between forms, and neither a
strategy nor a space knows which one runs.
"""

import torch

from supernets.fused import FusedCell
from supernets.mixed_op import ChosenOps
from supernets.native.build import library
from supernets.native.cell import NativeCell, twice_differentiable
from supernets.native.final import NativeFinal
from supernets.network import CellModule, Network

__all__ = ["FORMS", "check_form", "check_layout", "twice_differentiable", "use_form"]

FORMS = {"reference": None, "fused": FusedCell, "native": NativeCell}
# Of a final network's edges few run the same, so that the fused form has nothing to gain there.
FINAL_FORMS = {"reference": None, "fused": None, "native": NativeFinal}


# How many times faster the native form is than the fused one, by the lanes of a vector: the least
# over the workloads of benchmarks/step_time.py (benchmarks/results.md has processors and dates). A
# table, and no timing at run time, so that the same seed gives the same architecture.
NATIVE_GAIN = {4: 1.1, 8: 1.1, 16: 1.1}


def pays(device: torch.device) -> bool:
    """Whether `auto` takes the native form: on a CPU, where its kernels can be built and gain."""
    if device.type != "cpu" or (kernels := library()) is None:
        return False
    return NATIVE_GAIN.get(kernels.lanes(), 0.0) > 1.0


def check_form(form: str) -> None:
    """Raises ValueError for an unknown form."""
    if form not in ("auto", *FORMS):
        raise ValueError(f"runtime.form: expected one of auto, {', '.join(FORMS)}, found {form!r}")


def check_layout(channels_last: bool, device: torch.device) -> None:
    """Raises ValueError for channels last on a CPU."""
    if channels_last and device.type == "cpu":
        raise ValueError(
            "runtime.channels_last: needs CUDA, found cpu, where torch's convolutions may then "
            "write outside their memory; set runtime.channels_last=false"
        )


def use_form(net: Network, form: str, device: torch.device, *, channels_last: bool = False) -> None:
    """Chooses the form of every cell of a supernet or a final network, from now on.

    `auto` is `native` where that `pays`, else `fused`, which for a final network is the reference.
    The layout of maps in memory is channels first unless `channels_last` asks for the other on CUDA
    (`supernets.layout`). Raises ValueError for an unknown form, for `native` where it cannot be,
    and for `channels_last` on a CPU.
    """
    check_form(form)
    check_layout(channels_last, device)
    if form == "native" and (device.type != "cpu" or library() is None):
        raise ValueError(
            f"runtime.form: native needs a CPU, found {device.type}, and a C++ compiler; "
            "set runtime=fused"
        )
    if form == "auto":
        form = "native" if pays(device) else "fused"
    cells = [module for module in net.modules() if isinstance(module, CellModule)]
    final = all(isinstance(edge, ChosenOps) for cell in cells for edge in cell.edges.values())
    chosen = (FINAL_FORMS if final else FORMS)[form]
    net.channels_last = channels_last
    net.cells_channels_last = form == "native"
    for cell in cells:
        cell.form = None if chosen is None else chosen(cell)
