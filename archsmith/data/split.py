"""The settings common to all data sets, and the stratified split, a function of the seed."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

from archsmith.data.augment import Augment, generator
from archsmith.errors import DataError
from search_spaces.settings import Count, OpenShare, checked

Made = TypeVar("Made")


@checked
@dataclass(frozen=True)
class Settings:
    """The settings common to all data sets.

    Args:
        limit: largest number of training images, drawn stratified; None takes all.
        select: share of the training images that every search holds out for measuring.
        split: share of the others that train the weights; the rest is `val`, except in a one-level
            search.
        augment: `crop`, `flip`, `cutout`; see `archsmith.data.augment.Augment`.
        seed: seed of the limit and of the split.

    Raises:
        ValueError: a share outside (0, 1), a limit below 1, an unknown augmentation.
    """

    limit: Count | None
    split: OpenShare
    select: OpenShare
    augment: Mapping[str, Any]
    seed: int

    def __post_init__(self) -> None:
        Augment.of(self.augment)


def image_set(make: Callable[..., Made]) -> Callable[..., Made]:
    """A data set's function that takes the settings common to all in the place of `settings`."""
    common = inspect.signature(Settings).parameters
    own = inspect.signature(make).parameters

    @wraps(make)
    def made(*given: Any, **named: Any) -> Made:
        settings = Settings(**{name: named.pop(name) for name in common if name in named})
        return make(*given, **named, settings=settings)

    parameters = [*(one for one in own.values() if one.name != "settings"), *common.values()]
    made.__annotations__ = {one.name: one.annotation for one in parameters}
    made.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return made


def allocate(sizes: Tensor, count: int) -> Tensor:
    """Splits `count` in proportion to the class sizes (K,), by largest remainder."""
    product, total = sizes * count, int(sizes.sum())
    taken = product // total
    short = count - int(taken.sum())
    taken[(product % total).argsort(descending=True, stable=True)[:short]] += 1
    return taken


def pick(labels: Tensor, taken: Tensor, source: torch.Generator) -> Tensor:
    """(N,) bool: `taken[k]` random images of each class k."""
    mixed = torch.randperm(len(labels), generator=source)
    order = mixed[labels[mixed].argsort(stable=True)]  # by class, shuffled within it
    sizes = torch.bincount(labels, minlength=len(taken))
    rank = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[labels[order]]
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[order] = rank < taken[labels[order]]
    return chosen


def stratified(labels: Tensor, share: float, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """Positions of a share of each class, and of the rest.

    Both parts contain every class of 2 or more images; a class of one image is in the first.
    """
    sizes = torch.bincount(labels)
    taken = allocate(sizes, round(share * len(labels)))
    taken = taken.maximum(sizes.clamp(max=1)).minimum((sizes - 1).maximum(sizes.clamp(max=1)))
    chosen = pick(labels, taken, source)
    return chosen.nonzero().flatten(), (~chosen).nonzero().flatten()


def limited(strata: Tensor, settings: Settings) -> Tensor:
    """Positions of at most `data.limit` images. Raises DataError if a stratum would get none."""
    limit, count = settings.limit, len(strata)
    if limit is None or limit >= count:
        return torch.arange(count)
    sizes = torch.bincount(strata)
    taken = allocate(sizes, limit)
    if ((taken == 0) & (sizes > 0)).any():
        smallest = int(sizes[sizes > 0].min())
        raise DataError(
            f"data.limit: {limit} of {count} images leave none of a class that has {smallest}, "
            f"expected 1 or more; set data.limit to {math.ceil(count / smallest)} or more, or null"
        )
    return pick(strata, taken, generator(settings.seed, "limit")).nonzero().flatten()
