"""Outputs and gradients equal those of the public implementations to 1e-9, in float64.

Every item of forward.npz is one test. Left out: `goldnas`, which belongs to its strategy.
"""

from collections.abc import Iterable

import torch
from golden_files import cases
from golden_items import DARTS, Data, Item, PartialMixedOpOf4, build
from torch import Tensor

SHUFFLE = "pcdarts_mixed__channel_shuffle_source_index"


def item_of(key: str) -> str | None:
    """The item a key belongs to; None for inputs and for what is left out."""
    for mode in ("__train__", "__eval__"):
        if mode in key and not key.startswith("goldnas"):
            return key.split(mode)[0]
    return None


def items(keys: Iterable[str]) -> dict[str, str]:
    return {item: item for key in keys if (item := item_of(key))}


def results(item: Item) -> dict[str, Tensor]:
    """Eval first, on fresh statistics; then training, gradients of sum_i y_i cos(0.3 (i + 1))."""
    item.module.eval()
    found = {"eval__out": item.output()}
    item.module.train()
    y = item.output()
    found["train__out"] = y
    if item.leaves:
        i = torch.arange(1, y.numel() + 1, dtype=y.dtype)
        loss = y.flatten() @ torch.cos(0.3 * i)
        grads = torch.autograd.grad(loss, list(item.leaves.values()))
        named = zip(item.leaves, grads, strict=True)
        found |= {f"train__grad_{name}": grad for name, grad in named}
    return found


@cases("forward.npz", items)
def test_forward_and_gradients(golden, case):
    data = Data(golden)
    found = results(build(data, case))
    for key in (key for key in data.arrays if item_of(key) == case):
        expected = data[key]
        torch.testing.assert_close(
            found[key.removeprefix(f"{case}__")],
            expected,
            rtol=1e-9,
            atol=1e-9 * expected.abs().max().item(),
            msg=lambda message, key=key: f"{key}: {message}",
        )


def test_channel_shuffle(golden):
    source = torch.from_numpy(golden("forward.npz")[SHUFFLE])
    edge = PartialMixedOpOf4([DARTS["skip_connect"]], len(source), len(source), 1)
    channels = torch.arange(float(len(source))).view(1, -1, 1, 1)
    assert torch.equal(edge(channels, torch.ones(1), [0]).flatten().long(), source)


def test_every_key_is_read_or_compared(golden):
    data = Data(golden)
    for item in items(data.arrays):
        build(data, item)
    compared = {key for key in data.arrays if item_of(key)} | {SHUFFLE}
    left = {key for key in data.arrays if not key.startswith("goldnas")} - compared - data.read
    assert left == set()
