"""The architectures kept during a search: `pareto/NN.json`, `pareto.json` and `pareto.svg`."""

import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from archsmith.drawing.charts import undominated
from archsmith.drawing.render import render
from archsmith.errors import CheckpointError
from archsmith.files import write_atomically
from archsmith.train.run_folder import read_object
from search_spaces.architecture import Architecture
from search_spaces.space import Space
from supernets.costs import macs, parameters
from supernets.network import final_network

FORMAT = "archsmith.pareto/1"
log = logging.getLogger(__name__)


class Pareto:
    """A series of architectures with their sizes, in the order they were kept.

    Args:
        start: the epoch at which the search starts or resumes; entries from it on are deleted.
    """

    def __init__(self, folder: Path, space: Space, start: int):
        self.folder, self.space = folder, space
        self.path = folder / "pareto.json"
        before = self._before()
        self.points = [point for point in before if point["epoch"] < start]
        for point in before[len(self.points) :]:
            (folder / point["architecture"]).unlink(missing_ok=True)
        if before:
            self._write()

    def _before(self) -> list[dict[str, Any]]:
        """An interrupted search's series. Raises CheckpointError for a file that is not ours."""
        if not self.path.is_file():
            return []
        points = read_object(self.path).get("points")
        ours = isinstance(points, list) and all(
            isinstance(point, dict)
            and re.fullmatch(r"pareto/\d+\.json", str(point.get("architecture")))
            and isinstance(point.get("epoch"), int)
            for point in points
        )
        if not ours:
            raise CheckpointError(f"{self.path}: not readable; delete it, or set resume=never")
        return points or []

    def add(self, kept: Architecture, *, epoch: int, accuracy: float, meta: dict[str, Any]) -> None:
        """Saves an architecture of this epoch, ready for retraining, and updates the series.

        Args:
            accuracy: that of the discrete network with the supernet's weights, on `select`.
        """
        with torch.device("meta"):
            net = final_network(self.space, kept)
        sizes = {"macs": macs(net), "parameters": parameters(net)}
        file = f"pareto/{len(self.points):02d}.json"
        replace(kept, meta={**meta, "epoch": epoch, **sizes}).save(self.folder / file)
        self.points.append(
            {
                "architecture": file,
                "identity": kept.identity,
                "epoch": epoch,
                **sizes,
                "discretised_accuracy": accuracy,
            }
        )
        self._write()
        log.info(
            "search: kept %s, %.3g M multiply-accumulates, %.3g M parameters, accuracy %.3f",
            file, sizes["macs"] / 1e6, sizes["parameters"] / 1e6, accuracy,
        )  # fmt: skip

    def _write(self) -> None:
        content = {"format": FORMAT, "space": self.space.name, "points": self.points}
        write_atomically(self.path, (json.dumps(content, indent=2) + "\n").encode())
        svg = render("pareto.svg.j2", points=self.points, best=undominated(self.points))
        write_atomically(self.folder / "pareto.svg", svg.encode())


def best_first(folder: Path) -> list[Architecture]:
    """The kept architectures in a run's folder, most accurate first; empty if there are none."""
    path = folder / "pareto.json"
    points = read_object(path)["points"] if path.is_file() else []
    points = sorted(points, key=lambda point: -point["discretised_accuracy"])
    return [Architecture.load(folder / point["architecture"]) for point in points]
