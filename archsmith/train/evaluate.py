"""Accuracy and loss of a network on a loader, and re-estimation of batch-norm statistics."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from archsmith import interrupt
from archsmith.errors import NumbersError
from archsmith.train.replay import Capture
from archsmith.train.replayed import Replayed
from supernets.mixture import Mixture

Batches = Iterable[tuple[Tensor, Tensor]]  # images (B, C, H, W), labels (B,); of text (B, T)


@torch.no_grad()
def evaluate(
    net: nn.Module,
    loader: Batches,
    mixture: Mixture | None = None,
    *,
    seen: Callable[[Tensor, Tensor, Tensor], None] | None = None,
    capture: Capture | None = None,
) -> dict[str, float]:
    """`accuracy` as a fraction, mean cross-entropy `loss`; for more than 5 classes `top5_accuracy`.
    Where images have a label at each of T places, every place counts as one.

    `balanced_accuracy` is the mean accuracy over the classes that occur. `images` is their number,
    `commonest_answer` the most predicted class, `commonest_share` its share of the predictions and
    `commonest_true` its share of the labels; `largest_class` is the share of the most frequent
    class.

    Runs in eval mode and waits for the device only at the end, unless `seen` does.

    seen: called with images, labels and logits (B, classes), of text (B, classes, T), of every
        batch.
    capture: captures passes, which are then replayed.

    Raises:
        NumbersError: the loss is not finite, so an accuracy would be meaningless.
        Interrupted: the run was asked to stop.
    """
    sums: dict[str, Tensor] = {}
    images = 0
    passes = _passes(net, mixture, capture)
    with _eval_mode(net):
        for x, y in loader:
            interrupt.check("evaluation")
            logits = passes(x).float()
            images += y.numel()
            if seen is not None:
                seen(x, y, logits)
            for name, value in _measures(logits, y).items():
                sums[name] = sums[name] + value if name in sums else value
    assert images, "a loader without images"
    return _means(sums, images)


def _passes(
    net: nn.Module, mixture: Mixture | None, capture: Capture | None
) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        logits: Tensor = net(x, mixture)
        return logits

    return forward if capture is None else Replayed(forward, capture)


def _means(sums: dict[str, Tensor], images: int) -> dict[str, float]:
    """What `evaluate` returns, from the sums of `_measures` over all batches; NumbersError if the
    loss is not finite."""
    confusion = sums.pop("confusion")  # (classes, classes): label, answer
    means = {name: float(total) / images for name, total in sums.items()}
    if not math.isfinite(means["loss"]):
        raise NumbersError(
            f"evaluation: the mean loss over {images} images is {means['loss']}, expected a finite "
            "number; train again with a lower learning rate"
        )
    counts, answers = confusion.sum(1), confusion.sum(0)
    commonest = int(answers.argmax())
    means |= {
        "accuracy": float(confusion.trace()) / images,
        "balanced_accuracy": float((confusion.diag().double() / counts)[counts > 0].mean()),
        "images": images,
        "commonest_answer": commonest,
        "commonest_share": float(answers[commonest]) / images,
        "commonest_true": float(counts[commonest]) / images,
        "largest_class": float(counts.max()) / images,
    }
    return means


def _measures(logits: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Sums over the batch: the loss, the confusion matrix, and the images whose class is among the
    five largest logits."""
    classes = logits.size(1)
    pairs = (y * classes + logits.argmax(1)).flatten()
    counts = pairs.new_zeros(classes * classes).scatter_add_(0, pairs, torch.ones_like(pairs))
    sums = {
        "confusion": counts.view(classes, classes),
        "loss": F.cross_entropy(logits, y, reduction="sum").double(),
    }
    if classes > 5:
        sums["top5_accuracy"] = (logits.topk(5, 1).indices == y[:, None]).sum()
    return sums


@torch.no_grad()
def restore_statistics(net: nn.Module, loader: Batches, mixture: Mixture | None = None) -> None:
    """Sets every batch norm's mean and variance to the plain average over the batches of one pass.

    Nothing else changes; a batch norm that the pass does not reach keeps its statistics.
    """
    norms = [m for m in net.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return
    before = [({name: b.clone() for name, b in m.named_buffers()}, m.momentum) for m in norms]
    counts = [m.num_batches_tracked for m in norms]
    try:
        with _eval_mode(net):
            for norm in norms:
                norm.train()
                norm.reset_running_stats()
                norm.momentum = None  # makes torch average over all batches since the reset
                # torch reads the number of batches: on the host, without waiting for the device
                norm.num_batches_tracked = torch.tensor(0)
            for x, _ in loader:
                interrupt.check("evaluation")
                net(x, mixture)
    finally:
        for norm, count, (buffers, momentum) in zip(norms, counts, before, strict=True):
            seen = norm.num_batches_tracked
            assert count is not None
            assert seen is not None
            norm.momentum, norm.num_batches_tracked = momentum, count.copy_(seen)
            if not seen:
                norm.load_state_dict(buffers, strict=False)


@contextmanager
def _eval_mode(net: nn.Module) -> Iterator[None]:
    """A context manager for eval mode; restores the mode of every module."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
