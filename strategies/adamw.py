"""AdamW by the settings of SGD, so that it can take its place in any strategy.

Sources: Loshchilov & Hutter 2019, arXiv:1711.05101; Dozat 2016, ICLR workshop, for Nesterov's form.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from search_spaces.settings import NotNegative, Positive, Share, checked


@checked
def adamw(
    parameters: Iterable[nn.Parameter],
    *,
    lr: Positive,
    momentum: Share,
    beta: Share,
    weight_decay: NotNegative,
    nesterov: bool,
    foreach: bool,
) -> torch.optim.Optimizer:
    """AdamW with the betas (momentum, beta); with `nesterov` NAdam with decoupled decay."""
    common: dict[str, Any] = {"lr": lr, "betas": (momentum, beta), "foreach": foreach}
    common["weight_decay"] = weight_decay
    if nesterov:
        return torch.optim.NAdam(parameters, decoupled_weight_decay=True, **common)
    return torch.optim.AdamW(parameters, **common)
