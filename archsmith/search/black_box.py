"""The black-box search: a searcher asks for architectures and is told their scores."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from archsmith import interrupt
from archsmith.errors import Interrupted
from archsmith.parallel.distributed import from_first
from archsmith.search.time_budget import Clock
from archsmith.train.checkpoint import Checkpoints, fitting
from archsmith.train.random_state import random_state, set_random_state
from archsmith.train.record import Record
from search_spaces.architecture import Architecture
from strategies.searchers.searcher import Searcher

log = logging.getLogger(__name__)
QUICK = 0.5  # seconds; of scores that take less, only improvements are logged
Score = Callable[[Architecture, Path], float]  # higher is better; it may keep files in the folder


class BlackBoxSearch:
    """A search that scores as many architectures as its searcher has `asks`, or as fit into a
    number of seconds.

    Writes each architecture into `candidates/NNN` of the record's folder. A checkpoint is saved
    after a score as soon as its cost is negligible, and when the run is asked to stop; a killed
    run repeats the scores since the last one, with the same results.

    Args:
        ask: the next architecture, within the budget if there is one.
        score: it may change the random generators: the searcher does not notice.
        seconds: includes `spent`, what was spent before the first score; of `clock`.
    """

    def __init__(
        self,
        searcher: Searcher,
        ask: Callable[[], Architecture],
        score: Score,
        *,
        seconds: float | None,
        record: Record,
        checkpoints: Checkpoints,
        spent: float = 0.0,
        clock: Clock = time.perf_counter,
    ):
        self.searcher, self.ask, self.score, self.seconds = searcher, ask, score, seconds
        self.record, self.checkpoints = record, checkpoints
        self.clock = clock
        self.told, self.spent = 0, spent  # architectures with a score, and seconds so far
        self.asked: Architecture | None = None  # and not scored yet
        self.best: tuple[float, Architecture] | None = None

    def run(self) -> tuple[float, Architecture]:
        """Searches, or goes on from the last checkpoint; returns the best score and its
        architecture.

        Raises:
            CheckpointError: a checkpoint cannot be written, or an existing one cannot be used.
            Interrupted: the run was asked to stop; all progress is saved.
        """
        saved = self.checkpoints.load()
        if saved is not None:
            with fitting("search"):
                self.load_state_dict(saved)
            log.info("search: continued after %d scores", self.told)
        self.record.resume("search", self.told)
        try:
            while self.best is None or not self._over():
                interrupt.check("search")
                if self.asked is None:
                    self.asked = self.ask()
                self._score(self.asked)
                if self.checkpoints.due(epoch_over=True):
                    self._save()
        except Interrupted:
            self._save()
            raise
        self._save()
        return self.best

    def _over(self) -> bool:
        spent = self.seconds is not None and self.spent >= self.seconds
        enough = self.searcher.asks is not None and self.told >= self.searcher.asks
        return from_first(spent) or enough

    def _score(self, asked: Architecture) -> None:
        """Scores an architecture and tells the searcher."""
        folder = self.record.folder / "candidates" / f"{self.told:03d}"
        asked.save(folder / "architecture.json")
        began, before = self.clock(), random_state()
        try:
            score = self.score(asked, folder)
        finally:
            set_random_state(before)
        seconds = self.clock() - began
        self.searcher.tell(asked, score)
        better = self.best is None or score > self.best[0]
        if self.best is None or better:
            self.best = score, asked
        metrics = {"score": score, "best_score": self.best[0], "seconds": round(seconds, 3)}
        self.record.log("search", self.told, metrics)
        self.told, self.spent, self.asked = self.told + 1, self.spent + seconds, None
        if better or seconds >= QUICK:
            log.info("search: score %d is %.3f, the best %.3f", self.told, score, self.best[0])

    def _save(self) -> None:
        self.checkpoints.save(self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """All state that changes, valid after each `ask` and each `tell`."""
        return {
            "told": self.told,
            "spent": self.spent,
            "asked": self.asked and self.asked.to_json(),
            "best": self.best and [self.best[0], self.best[1].to_json()],
            "searcher": self.searcher.state_dict(),
            "random": random_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.told, self.spent = int(state["told"]), float(state["spent"])
        self.asked = _read(state["asked"]) if state["asked"] else None
        if state["best"]:
            score, text = state["best"]
            self.best = float(score), _read(text)
        self.searcher.load_state_dict(state["searcher"])
        set_random_state(state["random"])


def scores_in(folder: Path) -> list[float]:
    """The scores of a search in the order in which it asked, from the record in its folder."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [entry["score"] for entry in map(json.loads, lines) if "score" in entry]


def _read(text: str) -> Architecture:
    return Architecture.parse(json.loads(text), "search")
