"""A step reads no tensor on the host: on a GPU that would stop the device, and forbid CUDA graphs.

Fake tensors have shapes and no values, so whatever reads one fails: `.item()`, `.tolist()`,
`float()`, `if tensor`. They lie on the CPU, so a mere copy there is not seen. The supernet
computes in the fused form, which is the one that runs on CUDA.
"""

import pytest
import torch
from hydra.utils import instantiate
from test_every_config import STRATEGIES, composed, still
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from search_spaces.darts import darts
from strategies.strategy import Strategy
from supernets.forms import use_form
from supernets.network import Network, supernet

SPACE = darts(
    layers=3, nodes=1, channels=4, input_shape=(3, 8, 8), classes=10,
    candidates=["none", "skip_connect", "max_pool_3x3", "sep_conv_3x3"],
)  # fmt: skip


def prepared(name: str) -> tuple[Strategy, Network]:
    strategy = instantiate(composed(*still(name)).strategy, _convert_="all")(space=SPACE)
    net = supernet(SPACE, strategy.mixed_op).train()
    use_form(net, "fused", torch.device("cpu"))
    strategy.setup(net, torch.device("cpu"))
    strategy.epoch_start(0, 2)
    return strategy, net


def step(strategy: Strategy, net: Network) -> dict[str, torch.Tensor]:
    train, val = ((torch.randn(2, 3, 8, 8), torch.randint(10, (2,))) for _ in range(2))
    return strategy.step(net, train, val, progress=0.0, move_alphas=True)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "darts" else pytest.mark.slow)
        for name in STRATEGIES
        if name not in ("random", "gdas")
    ],
)
def test_a_step_reads_nothing_on_the_host(name: str):
    strategy, net = prepared(name)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert all(value.shape == () for value in step(strategy, net).values())


def test_one_path_reads_its_choice():
    """gdas runs only the drawn candidates, so the host must know them; the test above sees it."""
    strategy, net = prepared("gdas")
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        pytest.raises(DataDependentOutputException),
    ):
        step(strategy, net)
