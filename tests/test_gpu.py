"""Each strategy takes two steps on CUDA as it does on the CPU. Not run where there is no GPU."""

import pytest
import torch
from hydra.utils import instantiate
from test_every_config import STRATEGIES, composed, still

from search_spaces.space import Space
from supernets.network import supernet

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


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "random"])
def test_two_steps_on_cuda_equal_the_cpu(name: str, toy_darts: Space):
    """float32: Adam's first steps are lr * sign(g): an alpha may differ by 2 lr where g is near 0.

    Losses are compared at 1e-3 relative, alphas at 5% of the distance they moved, in the mean.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    alphas, losses = two_steps(name, toy_darts, torch.device("cpu"))
    on_cuda, cuda_losses = two_steps(name, toy_darts, torch.device("cuda"))
    assert cuda_losses == pytest.approx(losses, rel=1e-3)
    for ours, theirs in zip(alphas, on_cuda, strict=True):
        moved = 2 * 3e-4
        assert (ours - theirs).abs().mean() < 0.05 * moved
