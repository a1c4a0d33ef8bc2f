"""Sweeps torch's convolutions over sizes, each in a process that may crash.

`python tests/convolutions.py LAYOUT THREADS EVERY` prints as JSON what failed of every EVERY-th:
a signal, another result than channels first in float64, or a write outside its memory, which is
found in tensors that lie around it or, by glibc, where a block is freed (MALLOC_CHECK_).
"""

import faulthandler
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

LAYOUTS = ("first", "last", "gradient_last")  # of maps and gradients; the last of gradients alone
MAPS = ((1, 1), (2, 3), (4, 4), (6, 8), (8, 8), (9, 7))
CHECKED = {"LD_PRELOAD": "libc_malloc_debug.so.0", "MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "85"}
CHECKED |= {"OMP_WAIT_POLICY": "passive"}
TOGETHER = 64  # convolutions a process
SECONDS = 120  # after which it hangs
ROUNDING = 1e-4  # of the largest value


class Case(NamedTuple):
    """x (batch, inputs, *size) through a convolution padded to keep its size at stride 1."""

    batch: int
    inputs: int
    outputs: int
    groups: int
    kernel: int
    stride: int
    dilation: int
    size: tuple[int, int]


def cases() -> Iterator[Case]:
    """Full, grouped and depthwise convolutions of 1 to 20 channels."""
    channels = range(1, 21)
    full = [(i, o, 1) for i in channels for o in channels]
    grouped = [(c, c, g) for c in channels for g in {2, c // 2, c} if g > 1 and c % g == 0]
    for kernel, stride, batch, size in itertools.product((1, 3, 5), (1, 2), (2, 16), MAPS):
        few = full if kernel == 1 else [(i, o, 1) for i, o, _ in full if i in (1, 3, 8) or i == o]
        for inputs, outputs, groups in [*few, *grouped]:
            for dilation in (1, 2) if groups == inputs > 1 and kernel > 1 else (1,):
                yield Case(batch, inputs, outputs, groups, kernel, stride, dilation, size)


def through(case: Case, layout: str, x: Tensor, weight: Tensor, dy: Tensor | None) -> list[Tensor]:
    """Output and gradients of input and weights."""
    pad = case.dilation * (case.kernel // 2)
    how = ([case.stride] * 2, [pad] * 2, [case.dilation] * 2, False, [0, 0], case.groups)
    if layout == "last":
        x = x.contiguous(memory_format=torch.channels_last)
    y = torch.ops.aten.convolution(x, weight, None, *how)
    dy = torch.ones_like(y) if dy is None else dy
    if layout != "first":
        dy = dy.contiguous(memory_format=torch.channels_last)
    return [
        y,
        *torch.ops.aten.convolution_backward(dy, x, weight, None, *how, [True, True, False])[:2],
    ]


def right(case: Case, layout: str) -> bool:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    x = drawn(case.batch, case.inputs, *case.size)
    weight = drawn(case.outputs, case.inputs // case.groups, case.kernel, case.kernel)
    dy = drawn(case.batch, case.outputs, *(-(-side // case.stride) for side in case.size))
    expected = through(case, "first", x.double(), weight.double(), dy.double())
    around = [torch.full((count,), 7.0) for count in range(8, 264, 4) for _ in range(4)]
    del around[::2]  # what is freed between them is where the convolution works
    near = all(
        (found - t).abs().max() <= ROUNDING * t.abs().max().clamp_min(1.0)
        for _ in range(2)
        for found, t in zip(through(case, layout, x, weight, dy), expected, strict=True)
    )
    return near and bool((torch.cat(around) == 7.0).all())


def passes(together: Sequence[Case], layout: str) -> bool:
    """Whether a process computes them all, and rightly; few of them again and again."""
    child = os.fork()
    if child == 0:
        faulthandler.disable()  # a crash is a result
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        signal.alarm(SECONDS)
        again = [*together] * max(1, 16 // len(together))
        os._exit(0 if all(right(case, layout) for case in again) else 1)
    return os.waitpid(child, 0)[1] == 0


def failing(together: Sequence[Case], layout: str) -> list[Sequence[Case]]:
    """Those that fail, each alone; where they fail in one process only, these together."""
    if passes(together, layout):
        return []
    half = len(together) // 2
    parts = (together[:half], together[half:]) if half else ()
    return [group for part in parts for group in failing(part, layout)] or [together]


def sweep(layout: str, threads: int, every: int) -> list[list[Case]]:
    """What fails of every `every`-th case, found in a process of its own."""
    command = [sys.executable, __file__, layout, str(threads), str(every)]
    done = subprocess.run(
        command, env=os.environ | CHECKED, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    return [[Case(*values[:-1], tuple(values[-1])) for values in group] for group in found]


def main(layout: str, threads: str, every: str) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    torch.set_num_threads(int(threads))
    chosen = list(cases())[:: int(every)]
    parts = [chosen[i : i + TOGETHER] for i in range(0, len(chosen), TOGETHER)]
    print(json.dumps([group for part in parts for group in failing(part, layout)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
