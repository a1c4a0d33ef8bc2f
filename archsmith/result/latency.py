"""Time of a forward pass on this device, computed like the exported `model.py`: eager, float32."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from archsmith import interrupt
from archsmith.train.runtime import synchronize
from search_spaces.space import Space
from supernets.final_costs import Cost, Site, cost_tables, op_at
from supernets.network import Network

WARM_UP = 5
REPEATS = (20, 200)  # at least and at most
SECONDS = 1.0  # after this time no more repeats are made
PASSES = 7  # passes per single candidate


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
    net = net.to(device).eval()
    x = torch.zeros(batch, *net.space.input_shape, device=device)
    seconds: list[float] = []
    with torch.inference_mode():
        for _ in range(WARM_UP):
            net(x)
        least, most = REPEATS
        began = time.perf_counter()
        while len(seconds) < least or (
            len(seconds) < most and time.perf_counter() - began < SECONDS
        ):
            interrupt.check("latency")
            seconds.append(_timed(lambda: net(x), device))
    low, median, high = (1000 * q for q in statistics.quantiles(seconds, n=4))
    return Latency(median, low, high, len(seconds), batch)


def candidate_latencies(space: Space, device: torch.device, batch: int) -> Cost:
    """Milliseconds of each single option: choice -> (R, O), summed over the layers that share it.

    A guide for choosing an architecture, which is then measured as a whole; fixed parts are not
    included.
    """

    def milliseconds(place: Site) -> float:
        interrupt.check("latency")
        op = op_at(space, place).to(device).eval()
        x = torch.zeros(batch, place.c_in, place.height, place.width, device=device)
        with torch.inference_mode():
            op(x)
            return 1000 * statistics.median(_timed(lambda: op(x), device) for _ in range(PASSES))

    return Cost(0.0, cost_tables(space, milliseconds))


def _timed(step: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    began = time.perf_counter()
    step()
    synchronize(device)
    return time.perf_counter() - began
