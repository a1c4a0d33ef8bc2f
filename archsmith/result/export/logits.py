"""The logits that every exported format must reproduce, and the comparison with them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from archsmith.errors import Failure
from archsmith.result.classifier import Classifier
from archsmith.result.export.reload import SEED, seeded

BATCH_SIZES = (1, 3)
TOLERANCE = 1e-4  # relative to the largest logit


def expected_logits(net: Classifier) -> tuple[list[Tensor], list[Tensor]]:
    """Raw images of noise and the network's logits for them, which every format must reproduce.

    Raises:
        Failure: they are not finite.
    """
    generator = torch.Generator().manual_seed(SEED)
    values, shape = net.preprocessing.values, net.preprocessing.input_shape
    inputs = [
        torch.randint(values, (size, *shape), generator=generator).byte() for size in BATCH_SIZES
    ]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        expected = [seeded(net, x) for x in inputs]
    largest = largest_of(expected)
    if not math.isfinite(largest):
        raise Failure(
            f"export: the network's logits reach {largest}, expected numbers; train again"
        )
    return inputs, expected


def largest_of(logits: Sequence[Tensor]) -> float:
    """The largest absolute value."""
    return max(float(y.abs().max()) for y in logits)


def compare_logits(
    forms: dict[str, dict[str, Any]],
    outputs: Mapping[str, list[Tensor] | str],
    expected: Sequence[Tensor],
) -> None:
    """Records in `forms` how far each format's logits are from the network's.

    Raises:
        Failure: a format's logits differ from the network's.
    """
    tolerance = TOLERANCE * largest_of(expected)
    for name, found in outputs.items():
        form = f"export: {forms[name]['file']}"
        remedy = f"leave '{name}' out of export.formats, and report this"
        if isinstance(found, str):
            raise Failure(f"{form} cannot be loaded and run: {found}; {remedy}")
        gap = difference(expected, found)
        if gap > tolerance:
            raise Failure(
                f"{form} gives logits that differ by {gap:.3g} from the network's, "
                f"expected at most {tolerance:.3g}; {remedy}"
            )
        forms[name]["max_abs_difference"] = gap


def difference(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """The largest absolute difference; infinite where shapes differ or something is NaN."""
    if [y.shape for y in expected] != [y.shape for y in found]:
        return math.inf
    gaps = [float((a - b).abs().max()) for a, b in zip(expected, found, strict=True)]
    return math.inf if any(map(math.isnan, gaps)) else max(gaps)
