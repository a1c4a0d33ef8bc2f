"""How a supernet computes: `reference` edge by edge, or a faster form that gives the same numbers.

A form changes no parameter, no buffer and no name, so weights move between forms, and neither a
strategy nor a space knows which one runs.
"""

import logging

import torch
from torch import nn

from supernets.fused import FusedCell
from supernets.network import CellModule

log = logging.getLogger(__name__)

FORMS = ("auto", "reference", "fused")


def use_form(net: nn.Module, form: str, device: torch.device) -> None:
    """Chooses the form of every cell of a supernet, from now on.

    `auto` takes the fastest that works on the device. Raises ValueError for an unknown form.
    """
    if form not in FORMS:
        raise ValueError(f"runtime.form: expected one of {', '.join(FORMS)}, found '{form}'")
    for cell in net.modules():
        if isinstance(cell, CellModule):
            cell.form = None if form == "reference" else FusedCell(cell)
