"""How much a test accuracy means: its confidence interval, and whether the network has learnt."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

UNTESTED: dict[str, Any] = dict.fromkeys(
    f"test_{name}"
    for name in (
        "accuracy", "balanced_accuracy", "images", "interval", "commonest_share", "doubt",
        "mistakes",
    )
)  # fmt: skip


def wilson(share: float, n: int) -> tuple[float, float]:
    """95% interval of a share of n independent images. Wilson 1927, J. Am. Stat. Assoc. 22."""
    from scipy.stats import binomtest  # the import takes a second

    low, high = binomtest(round(share * n), n).proportion_ci(method="wilson")
    return float(low), float(high)


def outcome(measures: Mapping[str, float], classes: Sequence[str]) -> dict[str, Any]:
    """The test fields of `results.json`, from the measures of `evaluate`."""
    images = int(measures["images"])
    return {
        **UNTESTED,
        **{f"test_{k}": measures[k] for k in ("accuracy", "balanced_accuracy", "commonest_share")},
        "test_images": images,
        "test_interval": list(wilson(measures["accuracy"], images)),
        "test_doubt": _doubt(measures, classes),
    }


def _doubt(measures: Mapping[str, float], classes: Sequence[str]) -> str | None:
    """A warning if most images of other classes get the same answer, or guessing does as well."""
    images, share = int(measures["images"]), measures["commonest_share"]
    true, largest = measures["commonest_true"], measures["largest_class"]
    if true < 1 and share >= (1 + true) / 2:
        return (
            f"the network answers '{classes[int(measures['commonest_answer'])]}' for "
            f"{round(share * images)} of {images} test images, of which {round(true * images)} are "
            "that; retrain longer (retrain.epochs) or with a lower retrain.lr, and look at the "
            "labels"
        )
    if largest < 1 and wilson(measures["accuracy"], images)[0] <= largest:
        return (
            f"the test accuracy on {images} images cannot be told from always answering the "
            f"largest class ({100 * largest:.2f}%); retrain longer (retrain.epochs), or test on "
            "more images"
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
