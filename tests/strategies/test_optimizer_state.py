"""What an optimiser gets back from a checkpoint, and where it lies."""

import pytest
import torch
from torch import nn

from strategies.adamw import adamw
from strategies.optimizer_state import load_named_state, named_state


@pytest.mark.parametrize("nesterov", [False, True])
def test_moments_go_to_the_device_and_counts_stay_on_the_host(nesterov: bool):
    """As torch's optimisers hold them: a count on the device would be read there by every step."""

    def made(device: str) -> tuple[torch.optim.Optimizer, dict[int, str]]:
        weight = nn.Parameter(torch.ones(2, device=device))
        return adamw(
            [weight], lr=0.1, momentum=0.9, beta=0.99, weight_decay=0.0, nesterov=nesterov,
            foreach=False,
        ), {id(weight): "w"}  # fmt: skip

    optimizer, names = made("cpu")
    (weight,) = optimizer.param_groups[0]["params"]
    weight.sum().backward()
    optimizer.step()
    resumed, here = made("meta")
    load_named_state(resumed, here, named_state(optimizer, names))
    (state,) = resumed.state.values()
    devices = {name: value.device.type for name, value in state.items()}
    counts = ("step", "mu_product") if nesterov else ("step",)
    assert devices == {"exp_avg": "meta", "exp_avg_sq": "meta", **dict.fromkeys(counts, "cpu")}
