"""The phase that measures each option of the space on this device."""

import logging

from archsmith.errors import configuring
from archsmith.files import write_atomically
from archsmith.phases.run import Run
from archsmith.result.latency import option_latencies
from archsmith.train.runtime import describe_device
from supernets.latency_table import written
from supernets.network import check_costs

log = logging.getLogger(__name__)


def latency_phase(run: Run) -> None:
    """Writes `latency.csv`: median and quartiles in ms of every option where it stands, and of the
    fixed parts, in passes of `budget.latency_batch` images. A search may be given this table.

    Raises ConfigError where costs of options do not add up.
    """
    job, path = run.job, run.job.folder / "latency.csv"
    with configuring():
        check_costs(job.space)
    with run.measuring("measure_latency"):
        found = option_latencies(job.space, job.device, job.budget.latency_batch)
    device = describe_device(job.device)
    rows = [
        (
            site,
            {
                "median_ms": f"{one.median:.5f}",
                "low_ms": f"{one.low:.5f}",
                "high_ms": f"{one.high:.5f}",
                "repeats": one.repeats,
                "batch": one.batch,
                "device": device,
            },
        )
        for site, one in found.items()
    ]
    write_atomically(path, written(rows).encode())
    spread = max((one.high - one.low) / one.median for one in found.values())
    said = "latency: %d places in %s; the quartiles of a place are at most %.0f%% apart"
    log.info(said, len(found), path, 100 * spread)
