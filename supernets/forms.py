"""How a supernet computes: `reference` edge by edge, or a faster form that gives the same numbers.

A form changes no parameter, no buffer and no name, so weights move between forms, and neither a
strategy nor a space knows which one runs.
"""

import torch

from supernets.fused import FusedCell
from supernets.native.build import library
from supernets.native.cell import NativeCell, twice_differentiable
from supernets.network import CellModule, Network

__all__ = ["FORMS", "check_form", "check_layout", "twice_differentiable", "use_form"]

FORMS = {"reference": None, "fused": FusedCell, "native": NativeCell}


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
    """Chooses the form of every cell of a supernet, from now on.

    `auto` is `native` on a CPU with a C++ compiler, else `fused`. The layout of maps in memory is
    channels first unless `channels_last` asks for the other on CUDA (`supernets.layout`). Raises
    ValueError for an unknown form, for `native` where it cannot be, and for `channels_last` on a
    CPU.
    """
    check_form(form)
    check_layout(channels_last, device)
    if form == "native" and (device.type != "cpu" or library() is None):
        raise ValueError(
            f"runtime.form: native needs a CPU, found {device.type}, and a C++ compiler; "
            "set runtime=fused"
        )
    if form == "auto":
        form = "native" if device.type == "cpu" and library() is not None else "fused"
    chosen = FORMS[form]
    net.channels_last = channels_last
    for cell in net.modules():
        if isinstance(cell, CellModule):
            cell.form = None if chosen is None else chosen(cell)
