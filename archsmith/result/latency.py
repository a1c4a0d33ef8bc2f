"""Time of a forward pass on this device, computed like the exported `model.py`: eager, float32.

On CUDA a pass is captured as a graph and its replays are timed: small passes would otherwise take
as long as Python takes to launch their operations, whatever the network computes.
"""

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from archsmith import interrupt
from archsmith.train.replay import Capture, captures_safely, cause, cuda_capture
from archsmith.train.runtime import synchronize
from search_spaces.space import Space
from supernets.final_costs import Cost, Site, cost_tables, op_at
from supernets.latency_table import fixed_site
from supernets.network import Network, bare

log = logging.getLogger(__name__)

WARM_UP = 5
REPLAYS = 10  # that are timed together, as starting one takes as long as a small pass
REPEATS = (20, 200)  # at least and at most
SECONDS = 1.0  # after this time no more repeats are made
OPTION_SECONDS = 0.2  # likewise, for a single option of a table
PASSES = 7, 7  # likewise, per option of a guide


@dataclass(frozen=True)
class Latency:
    """Milliseconds per pass of `batch` images: median and quartiles over `repeats`."""

    median: float
    low: float
    high: float
    repeats: int
    batch: int

    def to_json(self) -> dict[str, Any]:
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()}


def measure_latency(net: Network, device: torch.device, batch: int) -> Latency:
    """Times a final network in eval mode after a warm-up; the network stays on the device."""
    return _measured(net, (batch, *net.space.input_shape), device, REPEATS, SECONDS)


def option_latencies(space: Space, device: torch.device, batch: int) -> dict[Site, Latency]:
    """Place -> latency of each option where it stands, and of the fixed parts, all warmed up.

    The fixed parts are a network with zeros in place of options. Raises ValueError as `bare`.
    """
    fixed = measure_latency(bare(space), device, batch)
    found, _ = _by_option(space, device, batch, REPEATS, OPTION_SECONDS)
    return {fixed_site(space): fixed} | found


def _measured(
    net: nn.Module,
    shape: Sequence[int],
    device: torch.device,
    repeats: tuple[int, int],
    most: float,
) -> Latency:
    """Times passes in eval mode after a warm-up: for `most` seconds, but at least and at most as
    many as `repeats` says."""
    net = net.to(device).eval()
    x = torch.zeros(*shape, device=device)
    capture = cuda_capture() if captures_safely(device) else None
    return passes(lambda: net(x), shape[0], device, repeats, most, capture)


def passes(
    step: Callable[[], object],
    batch: int,
    device: torch.device,
    repeats: tuple[int, int] = REPEATS,
    most: float = SECONDS,
    capture: Capture | None = None,
) -> Latency:
    """Times a pass of `batch` images after a warm-up, as `_measured` does; with a capture, replays
    of it, if the pass can be captured."""
    seconds: list[float] = []
    with torch.inference_mode():
        for _ in range(WARM_UP):
            step()
        replay = None if capture is None else _captured(step, capture)
        least, largest = repeats
        began = time.perf_counter()
        while len(seconds) < least or (
            len(seconds) < largest and time.perf_counter() - began < most
        ):
            interrupt.check("latency")
            seconds.append(
                _timed(step, device) if replay is None else _timed(replay, device, REPLAYS)
            )
    low, median, high = (1000 * q for q in statistics.quantiles(seconds, n=4))
    return Latency(median, low, high, len(seconds), batch)


def candidate_latencies(space: Space, device: torch.device, batch: int) -> Cost:
    """Milliseconds of each single option: choice -> (R, O), summed over the layers that share it.

    A guide for choosing an architecture, which is then measured as a whole; fixed parts are not
    included.
    """

    return Cost(0.0, _by_option(space, device, batch, PASSES, 0.0)[1])


def _by_option(
    space: Space, device: torch.device, batch: int, repeats: tuple[int, int], most: float
) -> tuple[dict[Site, Latency], dict[str, Tensor]]:
    """Place -> latency of each option where it stands, and the medians in ms: choice -> (R, O),
    summed over the layers that share it."""
    found: dict[Site, Latency] = {}

    def measured(site: Site) -> float:
        shape = batch, site.c_in, site.height, site.width
        found[site] = _measured(op_at(space, site), shape, device, repeats, most)
        return found[site].median

    tables = cost_tables(space, measured)
    return found, tables


def _captured(step: Callable[[], object], capture: Capture) -> Callable[[], object] | None:
    """The replay of a pass; None if it cannot be captured, which is logged."""
    try:
        return capture(step)[1]
    except RuntimeError as error:
        log.warning(
            "latency: a pass cannot be captured as a CUDA graph (%s), so that its time includes "
            "what Python takes to launch it", cause(error),
        )  # fmt: skip
        return None


def _timed(step: Callable[[], object], device: torch.device, times: int = 1) -> float:
    """Seconds of a step, the mean of so many in a row."""
    synchronize(device)
    began = time.perf_counter()
    for _ in range(times):
        step()
    synchronize(device)
    return (time.perf_counter() - began) / times
