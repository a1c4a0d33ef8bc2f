"""What only a GPU can show. Not run where there is none.

Each strategy takes two steps on CUDA as it does on the CPU; a replayed CUDA graph takes the steps
that eager operations take, also in bfloat16 and channels last; a step does not wait for the device.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hydra.utils import instantiate
from test_every_config import OWN, SEARCHERS, STRATEGIES, composed, still

from archsmith.train.replay import Replay, cuda_capture
from search_spaces.space import Space
from strategies.strategy import Strategy
from supernets.forms import use_form
from supernets.network import Network, supernet

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="not run: no CUDA device here"),
]


def two_steps(
    name: str, space: Space, device: torch.device
) -> tuple[list[torch.Tensor], list[float]]:
    """Alphas and losses after two steps from the same start on the same batches."""
    torch.manual_seed(0)
    strategy = instantiate(composed(*still(name)).strategy, _convert_="all")(space=space)
    net = supernet(space, strategy.mixed_op).to(device)
    strategy.setup(net, device)
    if getattr(strategy.relaxation, "samples", False):  # devices draw different noise
        strategy.relaxation.forward = strategy.relaxation.expected
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(2):
        train, val = (
            (
                torch.randn(8, 3, 16, 16, generator=generator).to(device),
                torch.randint(10, (8,), generator=generator).to(device),
            )
            for _ in range(2)
        )
        metrics = strategy.step(net, train, val, progress=0.0, move_alphas=True)
        losses.append(float(metrics["train_loss"]))
    return [p.detach().cpu() for p in strategy.arch_parameters()], losses


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name not in SEARCHERS])
def test_two_steps_on_cuda_equal_the_cpu(name: str, toy_darts: Space):
    """float32: Adam's first steps are lr * sign(g): an alpha may differ by 2 lr where g is near 0.

    Losses are compared at 1e-3 relative, alphas at 5% of the distance they moved, in the mean.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    space = OWN.get(name, toy_darts).resize(input_shape=(3, 16, 16))
    alphas, losses = two_steps(name, space, torch.device("cpu"))
    on_cuda, cuda_losses = two_steps(name, space, torch.device("cuda"))
    assert cuda_losses == pytest.approx(losses, rel=1e-3)
    for ours, theirs in zip(alphas, on_cuda, strict=True):
        moved = 2 * 3e-4
        assert (ours - theirs).abs().mean() < 0.05 * moved


CUDA = torch.device("cuda")


def prepared(
    name: str, space: Space, *, graphs: bool, channels_last: bool = False, dtype: object = None
) -> tuple[Strategy, Network]:
    """On CUDA, in the fused form."""
    torch.manual_seed(0)
    strategy = instantiate(composed(*still(name)).strategy, _convert_="all")(space=space)
    net = supernet(space, strategy.mixed_op).to(CUDA).train()
    use_form(net, "fused", CUDA, channels_last=channels_last)
    net.autocast = dtype
    strategy.setup(net, CUDA)
    if graphs:
        strategy.gradients = Replay(strategy, net, cuda_capture)
    return strategy, net


def steps(strategy: Strategy, net: Network, count: int) -> list[float]:
    generator = torch.Generator().manual_seed(1)
    losses = []
    for step in range(count):
        train, val = (
            (
                torch.randn(8, 3, 16, 16, generator=generator).to(CUDA),
                torch.randint(10, (8,), generator=generator).to(CUDA),
            )
            for _ in range(2)
        )
        metrics = strategy.step(net, train, val, progress=step / count, move_alphas=True)
        losses.append(float(metrics["train_loss"]))
    return losses


@contextmanager
def repeatable() -> Iterator[None]:
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@pytest.mark.parametrize("name", ["darts", "darts_second_order", "pcdarts", "goldnas"])
@pytest.mark.parametrize("how", ["float32", "bfloat16", "channels_last"])
def test_cuda_graphs_take_the_steps_of_eager_operations(name: str, how: str, toy_darts: Space):
    """Six steps: the first eager, the second captured, then replays. 1e-3: sums in other orders."""
    more = {
        "channels_last": how == "channels_last",
        "dtype": torch.bfloat16 if how == "bfloat16" else None,
    }
    with repeatable():
        eager = steps(*prepared(name, toy_darts, graphs=False, **more), 6)
        strategy, net = prepared(name, toy_darts, graphs=True, **more)
        replayed = steps(strategy, net, 6)
    assert not strategy.gradients.off
    assert any(graph is not None for graph in strategy.gradients.graphs.values())
    assert replayed == pytest.approx(eager, rel=5e-2 if how == "bfloat16" else 1e-3)


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("name", ["darts", "darts_second_order", "pcdarts", "goldnas", "sddarts"])
def test_a_step_does_not_wait_for_the_device(name: str, graphs: bool, toy_darts: Space):
    """After three: tables are copied in the first, graphs captured in the second."""
    strategy, net = prepared(name, toy_darts, graphs=graphs)
    steps(strategy, net, 3)
    batch = torch.randn(8, 3, 16, 16, device=CUDA), torch.zeros(8, dtype=torch.long, device=CUDA)
    torch.cuda.set_sync_debug_mode("error")
    try:
        strategy.step(net, batch, batch, progress=0.9, move_alphas=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")
