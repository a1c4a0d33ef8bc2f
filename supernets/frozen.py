"""What stands still in a pass: the statistics of batch norms, the weights."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from supernets.gpu import launches


@contextmanager
def frozen_statistics(net: nn.Module) -> Iterator[None]:
    """Batch norms use the batch's statistics but do not record them."""
    norms = [m for m in _modules(net) if isinstance(m, _BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def unread_statistics(net: nn.Module) -> AbstractContextManager[None]:
    """Within, a supernet on a GPU records no statistics, which there is an eighth of the operations
    of a search step. Nothing reads what training recorded: whoever measures a supernet in eval mode
    estimates the statistics first (`archsmith.train.evaluate.restore_statistics`)."""
    weight = next(net.parameters(), None)
    on_gpu = weight is not None and launches(weight.device)
    return frozen_statistics(net) if on_gpu else nullcontext()


def _modules(net: nn.Module) -> Iterator[nn.Module]:
    """As `net.modules()`, whose nested generators would take a large part of a fast step."""
    waiting = [net]
    while waiting:
        module = waiting.pop()
        waiting.extend(module.children())
        yield module


@contextmanager
def without_gradients(weights: Sequence[Tensor]) -> Iterator[None]:
    """The weights are constants: nothing of their gradients is prepared or computed."""
    wanted = [w for w in weights if w.requires_grad]
    for w in wanted:
        w.requires_grad_(False)
    try:
        yield
    finally:
        for w in wanted:
            w.requires_grad_(True)
