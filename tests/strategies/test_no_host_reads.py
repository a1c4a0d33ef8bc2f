"""A step reads no tensor on the host: on a GPU that would stop the device, and forbid CUDA graphs.

Fake tensors have shapes and no values, so whatever reads one fails: `.item()`, `.tolist()`,
`float()`, `if tensor`. Those of a whole step lie on the CPU; the forward passes are also made on
fake CUDA tensors, where a copy from or to the host is seen. The supernet computes in the fused
form as on CUDA.
"""

from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from test_every_config import OWN, SEARCHERS, STRATEGIES, composed, still
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from search_spaces.darts import darts
from strategies.strategy import Strategy
from strategies.update import second_order
from supernets import convolution, forms, frozen
from supernets.forms import use_form
from supernets.network import Network, supernet

SPACE = darts(
    layers=3, nodes=1, channels=4, input_shape=(3, 8, 8), classes=10,
    candidates=["none", "skip_connect", "max_pool_3x3", "sep_conv_3x3"],
)  # fmt: skip


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    for module in (forms, convolution, frozen, second_order):
        monkeypatch.setattr(module, "launches", lambda device: True)


def prepared(name: str) -> tuple[Strategy, Network]:
    space = OWN.get(name, SPACE)
    strategy = instantiate(composed(*still(name)).strategy, _convert_="all")(space=space)
    net = supernet(space, strategy.mixed_op).train()
    use_form(net, "fused", torch.device("cpu"))
    strategy.setup(net, torch.device("cpu"))
    strategy.epoch_start(0, 2)
    return strategy, net


def step(strategy: Strategy, net: Network) -> dict[str, torch.Tensor]:
    train, val = ((torch.randn(2, 3, 8, 8), torch.randint(10, (2,))) for _ in range(2))
    return strategy.step(net, train, val, progress=0.0, move_alphas=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "darts" else pytest.mark.slow)
        for name in STRATEGIES
        if name not in ("gdas", "rome", "tas", "shrink", *SEARCHERS)
    ],
)
def test_a_step_reads_nothing_on_the_host(name: str):
    strategy, net = prepared(name)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert all(value.shape == () for value in step(strategy, net).values())


class Copies(TorchDispatchMode):
    """Collects operations that take tensors of one device to another."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is not torch.ops.prim.device.default:
            tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)]
            if len({t.device for t in tensors if t.dim()}) > 1:
                self.found.append(str(func))
        return result


# drnas draws by an operation that has no fake form; the others read tables when they are set up.
READ = ("goldnas", "fairdarts", "ddarts", "dartopti", "rome")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        n
        for n in STRATEGIES
        if n
        not in (
            "gdas",
            "drnas",
            "drnas_progressive",
            "pareto_gates",
            "shrink",
            "tas",
            *READ,
            *SEARCHERS,
        )
    ],
)
def test_a_pass_copies_nothing_between_devices(name: str, monkeypatch):
    """After the first, which may put tables where they are needed."""
    monkeypatch.setattr(torch.__future__, "_overwrite_module_params_on_conversion", True)
    space = OWN.get(name, SPACE)
    strategy = instantiate(composed(*still(name)).strategy, _convert_="all")(space=space)
    net = supernet(space, strategy.mixed_op).train()
    cuda = torch.device("cuda")
    with FakeTensorMode(allow_non_fake_inputs=True):
        net.to(cuda)
        use_form(net, "fused", cuda)
        strategy.setup(net, cuda)
        batch = torch.randn(2, 3, 8, 8, device=cuda), torch.zeros(2, dtype=torch.long, device=cuda)
        strategy.loss(net, batch)
        with Copies() as copies:
            loss, _ = strategy.loss(net, batch)
    assert loss.device.type == "cuda"
    assert copies.found == []


@pytest.mark.parametrize("name", ["gdas", "rome"])
def test_one_path_reads_its_choice(name: str):
    """Only what is drawn runs, so the host must know it; the test above sees it."""
    strategy, net = prepared(name)
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        pytest.raises(DataDependentOutputException),
    ):
        step(strategy, net)
