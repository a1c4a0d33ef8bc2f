"""What `archsmith.find` returns."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archsmith.data.names import printable
from archsmith.files import write_atomically
from archsmith.result.classifier import Classifier
from archsmith.result.export.card import model_card
from archsmith.result.export.files import export
from search_spaces.architecture import Architecture

if TYPE_CHECKING:
    import pandas as pd

DEFAULT = ("standalone", "onnx", "pt2", "genotype")


@dataclass(frozen=True, repr=False)
class Found:
    """A finished run. `net, architecture = found` unpacks it; a notebook draws it.

    Args:
        net: the trained network, on the CPU, in eval mode; it takes raw images.
        architecture: what was found; a notebook draws its cells.
        folder: the run's files.
    """

    net: Classifier
    architecture: Architecture
    folder: Path

    def __iter__(self) -> Iterator[Any]:
        yield self.net
        yield self.architecture

    @property
    def results(self) -> dict[str, Any]:
        """The content of `results.json`."""
        found: dict[str, Any] = json.loads((self.folder / "results.json").read_text())
        return found

    @property
    def test_accuracy(self) -> float | None:
        """On the test images, a fraction; None without test images."""
        accuracy: float | None = self.results["test_accuracy"]
        return accuracy

    @property
    def history(self) -> "pd.DataFrame":
        """A row per epoch of the search and of the retraining (`phase`, `epoch` from 1), a column
        per metric."""
        import pandas as pd

        lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        table = pd.DataFrame([json.loads(line) for line in lines])
        table.insert(1, "epoch", table.pop("step") + 1)
        return table

    @property
    def predict(self) -> Any:
        """`Classifier.predict` of the network."""
        return self.net.predict

    def export(self, formats: Sequence[str] = DEFAULT) -> Path:
        """Writes the network in these formats, each reloaded and compared, and the model card;
        returns their folder.

        Raises:
            ValueError: an unknown format.
            Failure: a format does not reproduce the network's logits.
        """
        folder = self.folder / "export"
        written = export(
            self.net.net,  # type: ignore[arg-type]
            self.architecture,
            folder,
            preprocessing=self.net.preprocessing,
            formats=formats,
        )
        write_atomically(folder / "README.md", model_card(written, self.results).encode())
        return folder

    def __repr__(self) -> str:
        return f"Found({', '.join(self._said())})"

    def _repr_html_(self) -> str:
        """The accuracy, the size and the cells."""
        cells = [path.read_text() for path in sorted(self.folder.glob("cell_*.svg"))]
        escaped = " · ".join(self._said()).replace("&", "&amp;").replace("<", "&lt;")
        return f"<p>{escaped}</p>" + "".join(f"<div>{cell}</div>" for cell in cells)

    def _said(self) -> list[str]:
        results, tested = self.results, self.test_accuracy
        return [
            "not tested" if tested is None else f"test accuracy {100 * tested:.2f}%",
            f"{results['parameters']:,} parameters",
            f"{results['macs']:,} multiply-accumulates",
            printable(str(self.folder)),
        ]
