"""For runs started by an NNI experiment: reads its proposal and reports accuracies. Else a no-op.

NNI is imported only inside such a run, and a broken NNI never breaks a search.
"""

import logging
import os
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)


def inside() -> bool:
    """Whether an NNI experiment started this process."""
    return os.environ.get("NNI_PLATFORM", "standalone") not in ("", "standalone", "unittest")


def overrides() -> list[str]:
    """The experiment's proposal as overrides, with a run folder where NNI collects a trial's files.

    Keys of the experiment's search space are settings (`strategy.alpha_optimizer.lr`) or groups
    (`strategy`).
    """
    if not inside():
        return []
    found = _asked(lambda nni: nni.get_next_parameter()) or {}
    plain = {key: value.item() if hasattr(value, "item") else value for key, value in found.items()}
    folder = os.environ.get("NNI_OUTPUT_DIR")
    place = [f"hydra.run.dir={folder}/run"] if folder else []
    return [*(f"{key}={value}" for key, value in plain.items()), *place]


def intermediate(accuracy: float) -> None:
    """Reports an intermediate accuracy."""
    if inside():
        _asked(lambda nni: nni.report_intermediate_result(accuracy))


def final(accuracy: float | None) -> None:
    """Reports the value that the experiment optimises."""
    if inside() and accuracy is not None:
        _asked(lambda nni: nni.report_final_result(accuracy))


def _asked(question: Callable[[Any], Any]) -> Any:
    try:
        import nni

        return question(nni)
    except Exception as error:  # an error in NNI must not stop the search
        log.warning("nni: %s: %s; the search goes on without it", type(error).__name__, error)
        return None
