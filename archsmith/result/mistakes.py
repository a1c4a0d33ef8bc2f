"""Where a network is wrong, from its one pass over the test images.

Confusion and accuracy by class, calibration (Guo et al. 2017, arXiv:1706.04599, eq. 3), and the
mistakes of which the network was most certain.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from archsmith.data.loader import Normalise
from archsmith.files import write_atomically
from archsmith.result.outcome import wilson

MOST = 12  # mistakes that are kept with their image
BINS = 10  # of the confidence, equally wide
WIDEST = 100  # classes up to which the whole confusion matrix is kept
FOLDER = "mistakes"


class Mistakes:
    """Collects the answers of one pass over labelled images, in their order.

    Args:
        classes: names, in the order of the logits.
        normalise: that of the images, by which their pixels are found again.
        name: the name of the image at a position.
    """

    def __init__(self, classes: Sequence[str], normalise: Normalise, name: Callable[[int], str]):
        self.classes, self.normalise, self.name = classes, normalise, name
        self.labels, self.answers, self.confidences = (torch.empty(0) for _ in range(3))
        self.kept: list[tuple[float, int, Tensor]] = []  # confidence, position, image (C, H, W)

    def add(self, x: Tensor, y: Tensor, logits: Tensor) -> None:
        """A batch: images (B, C, H, W), labels (B,), logits (B, classes)."""
        before = len(self.labels)
        confidences, answers = (found.cpu() for found in logits.softmax(1).max(1))
        labels = y.cpu()
        wrong = (answers != labels).nonzero().flatten()
        surest = wrong[confidences[wrong].argsort(descending=True, stable=True)[:MOST]]
        new = [(float(confidences[i]), before + i, x[i].cpu()) for i in surest.tolist()]
        self.kept = sorted([*self.kept, *new], key=lambda one: -one[0])[:MOST]
        self.labels = torch.cat([self.labels, labels]).long()
        self.answers = torch.cat([self.answers, answers]).long()
        self.confidences = torch.cat([self.confidences, confidences])

    def told(self) -> dict[str, Any]:
        """The entry of `results.json`: `classes`, `confusion` (label, answer; null for more than
        100 classes), `calibration` and `surest`, whose images `save` writes."""
        K = len(self.classes)
        confusion = torch.bincount(self.labels * K + self.answers, minlength=K * K).view(K, K)
        counts, right = confusion.sum(1).tolist(), confusion.diag().tolist()
        return {
            "classes": [
                {
                    "name": name,
                    "images": n,
                    "accuracy": hits / n if n else None,
                    "interval": list(wilson(hits / n, n)) if n else None,
                }
                for name, n, hits in zip(self.classes, counts, right, strict=True)
            ],
            "confusion": confusion.tolist() if K <= WIDEST else None,
            "calibration": self._calibration(),
            "surest": [
                {
                    "image": self.name(position),
                    "is": self.classes[int(self.labels[position])],
                    "answer": self.classes[int(self.answers[position])],
                    "confidence": confidence,
                }
                for confidence, position, _ in self.kept
            ],
        }

    def _calibration(self) -> dict[str, Any]:
        """`error`: the mean distance of accuracy and confidence over bins of the confidence,
        weighted by their images; and the bins."""
        right = (self.labels == self.answers).double()
        place = (self.confidences * BINS).long().clamp(max=BINS - 1)
        bins, error = [], 0.0
        for i in range(BINS):
            inside = place == i
            n = int(inside.sum())
            accuracy = float(right[inside].mean()) if n else None
            confidence = float(self.confidences[inside].double().mean()) if n else None
            bins.append({"images": n, "accuracy": accuracy, "confidence": confidence})
            if accuracy is not None and confidence is not None:
                error += n / len(right) * abs(accuracy - confidence)
        return {"error": error, "bins": bins}

    def save(self, folder: Path) -> None:
        """Writes `mistakes/NN.png`, in the order of `surest`, and removes those of earlier runs."""
        place = folder / FOLDER
        place.mkdir(exist_ok=True)
        for earlier in place.glob("*.png"):
            earlier.unlink()
        for i, (_, _, x) in enumerate(self.kept):
            write_atomically(place / f"{i:02d}.png", self._png(x))

    def _png(self, x: Tensor) -> bytes:
        """A PNG of a normalised image (C, H, W); of other than 1 or 3 channels, of the first."""
        mean, std = self.normalise.mean[:, None, None], self.normalise.std[:, None, None]
        pixels = ((x * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
        shown = pixels.permute(1, 2, 0).numpy() if len(pixels) == 3 else pixels[0].numpy()
        written = io.BytesIO()
        Image.fromarray(shown).save(written, "PNG")
        return written.getvalue()
