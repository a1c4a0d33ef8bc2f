"""How much a test accuracy means: its confidence interval, and whether the network has learnt."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

UNTESTED: dict[str, Any] = dict.fromkeys(
    f"test_{name}"
    for name in (
        "accuracy", "balanced_accuracy", "images", "interval", "commonest_share", "doubt",
        "mistakes", "bits_per_character",
    )
)  # fmt: skip


def wilson(share: float, n: int) -> tuple[float, float]:
    """95% interval of a share of n independent images. Wilson 1927, J. Am. Stat. Assoc. 22."""
    from scipy.stats import binomtest  # the import takes a second

    low, high = binomtest(round(share * n), n).proportion_ci(method="wilson")
    return float(low), float(high)


def outcome(
    measures: Mapping[str, float], classes: Sequence[str], *, text: bool = False
) -> dict[str, Any]:
    """The test fields of `results.json`, from the measures of `evaluate`.

    For a text the images are its characters. `bits_per_character` is the mean cross-entropy to base
    2; there is no interval, as characters depend on each other.
    """
    images = int(measures["images"])
    found = {
        **UNTESTED,
        **{f"test_{k}": measures[k] for k in ("accuracy", "balanced_accuracy", "commonest_share")},
        "test_images": images,
        "test_interval": list(wilson(measures["accuracy"], images)),
        "test_doubt": _doubt(measures, classes, "characters" if text else "images"),
    }
    if text:
        found |= {"test_bits_per_character": measures["loss"] / math.log(2), "test_interval": None}
    return found


def _doubt(measures: Mapping[str, float], classes: Sequence[str], what: str) -> str | None:
    """A warning if most images of other classes get the same answer, or guessing does as well.
    what: images, or characters."""
    images, share = int(measures["images"]), measures["commonest_share"]
    true, largest = measures["commonest_true"], measures["largest_class"]
    if true < 1 and share >= (1 + true) / 2:
        return (
            f"the network answers '{classes[int(measures['commonest_answer'])]}' for "
            f"{round(share * images)} of {images} test {what}, of which {round(true * images)} are "
            "that; retrain longer (retrain.epochs) or with a lower retrain.lr, and look at the "
            "labels"
        )
    if largest < 1 and wilson(measures["accuracy"], images)[0] <= largest:
        return (
            f"the test accuracy on {images} {what} cannot be told from always answering the "
            f"largest class ({100 * largest:.2f}%); retrain longer (retrain.epochs), or test on "
            f"more {what}"
        )
    return None


def of_random_ones(results: Mapping[str, Any]) -> list[float]:
    """The test accuracies of the random architectures beside the found one, as fractions."""
    rivals = (results.get("baseline") or {}).values()
    return [told["test_accuracy"] for told in rivals if "drawn" in told]


def beside_random(results: Mapping[str, Any]) -> str | None:
    """A sentence on the found network's test accuracy beside those of random architectures; None
    without them. Of n + 1 networks that are alike, each is the best with probability 1 / (n + 1).
    """
    drawn, found = of_random_ones(results), results["test_accuracy"]
    if found is None or not drawn:
        return None
    better, n = sum(found > one for one in drawn), len(drawn)
    spread = f" ± {100 * stdev(drawn):.2f} (mean ± sd, n = {n})" if n > 1 else " (n = 1)"
    said = f"found {100 * found:.2f}%, random {100 * fmean(drawn):.2f}%{spread}"
    if better < n:
        return f"{said}: better than {better} of {n}, no evidence that the search helped"
    return f"{said}: better than all, which a search that does not help is with chance 1/{n + 1}"
