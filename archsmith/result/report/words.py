"""What the report says in words: its title, the finding, the checklist."""

from collections.abc import Iterator, Mapping
from statistics import fmean, stdev
from typing import Any, NamedTuple

from archsmith.result.outcome import of_random_ones
from archsmith.result.statistics import LEVEL
from search_spaces.tabular import FORMS

MARKS = {"yes": "✓", "no": "–", "ask": "?"}

Results = Mapping[str, Any]


def title(results: Results, *, given: bool = False) -> str:
    """`DARTS strategy, DARTS space, digits, seed 0`; no strategy for a given architecture."""
    strategy = [] if given else [f"{_shown(results['strategy'])} strategy"]
    space = f"{_shown(results['space'])} space"
    return ", ".join([*strategy, space, str(results["data"]), f"seed {results['seed']}"])


def _shown(name: str) -> str:
    """The name of a configuration in capitals: they are abbreviations more often than words."""
    return name.replace("_", " ").upper()


class Headline(NamedTuple):
    """The number that is shown large. field: which one of `results.json`, or of `benchmark`."""

    field: str
    value: str
    caption: str


def headline(results: Results) -> Headline | None:
    """The test accuracy; without one, the benchmark's; without one, the supernet's."""
    if (tested := results["test_accuracy"]) is not None:
        if (bits := results.get("test_bits_per_character")) is not None:
            return Headline("test_accuracy", f"{bits:.3f}", "bits per character of the test text")
        value, caption = _percent(tested, results), "of the test images right"
        return Headline("test_accuracy", value, caption)
    if found := results["benchmark"]:
        return Headline("benchmark", f"{found['accuracy']:.2f}%", "accuracy in the table")
    if (supernet := results["supernet_accuracy"]) is not None:
        caption = "of the held-out images right, by the supernet"
        return Headline("supernet_accuracy", f"{100 * supernet:.2f}%", caption)
    return None


def finding(results: Results, *, given: bool = False) -> str:
    """The result in sentences, with its interval and beside what it was compared with.

    given: whether the architecture was given, and not found by the run.
    """
    shown = headline(results)
    if shown is None:
        return "No network was trained yet, so no accuracy is known."
    if shown.field == "test_accuracy":
        return " ".join(
            [_tested(results, given), *_beside_random(results), *_beside_designs(results)]
        )
    if shown.field == "benchmark":
        found = results["benchmark"]
        return (
            f"The found architecture has an accuracy of {shown.value}{on_column(found['column'])} "
            f"in the benchmark's table, rank {found['rank']:,} of {found['of']:,}. "
            "It was not retrained."
        )
    return (
        f"The supernet classifies {shown.value} of the held-out images right. The found network "
        "was not retrained, so its own accuracy is not known."
    )


def on_column(name: str) -> str:
    """Names the column of a benchmark's table, unless the name says nothing more."""
    return "" if name == "accuracy" else f" on {name}"


def _percent(share: float, results: Results) -> str:
    """A share of the test images; one decimal place where one image is more than 0.1 points."""
    images = results.get("test_images")
    return f"{100 * share:.{1 if images and images < 1000 else 2}f}%"


def _interval(found: Mapping[str, Any], results: Results) -> str:
    """` (95% interval 96.5 to 98.9%)`; empty for older runs, which have none."""
    if not found.get("test_interval"):
        return ""
    low, high = (_percent(share, results) for share in found["test_interval"])
    return f" (95% interval {low.removesuffix('%')} to {high})"


def _tested(results: Results, given: bool) -> str:
    what = "network of the given architecture" if given else "found network"
    count = f"{results['test_images']:,} " if results.get("test_images") else ""
    right = _percent(results["test_accuracy"], results)
    if (bits := results.get("test_bits_per_character")) is not None:
        return (
            f"The {what} needs {bits:.3f} bits for each of the {count}characters of the test text, "
            f"and predicts {right} of them."
        )
    return f"The {what} classifies {right} of the {count}test images right" + (
        f"{_interval(results, results)}."
    )


def _beside_random(results: Results) -> Iterator[str]:
    """Of n + 1 networks that are alike, each is among the k best with probability k / (n + 1)."""
    drawn = of_random_ones(results)
    if not drawn:
        return
    n, above = len(drawn), sum(results["test_accuracy"] > one for one in drawn)
    mean = _percent(fmean(drawn), results)
    if n > 1:
        mean = f"{mean.removesuffix('%')} ± {_percent(stdev(drawn), results)}"
        mean += " (mean ± standard deviation"
    which = f"{n} random architectures" if n > 1 else "a random architecture"
    numbers = f"{mean}, n = {n})" if n > 1 else f"{mean} (n = 1)"
    among = "all" if above == n else str(above or "none")
    place = n + 1 - above
    told = "can" if place / (n + 1) <= LEVEL else "cannot"
    chance = f", as a further random one would be with a chance of {place} in {n + 1}"
    yield (
        f"Beside it, {which} of the same space, trained alike, {'reach' if n > 1 else 'reaches'} "
        f"{numbers}. The found one is above {among} of them{chance if above else ''}, so the two "
        f"{told} be told apart."
    )


def _beside_designs(results: Results) -> Iterator[str]:
    """Networks designed by hand: whether their intervals and that of the found one overlap."""
    for name, told in (results.get("baseline") or {}).items():
        if "drawn" in told:
            continue
        reached = _percent(told["test_accuracy"], results) + _interval(told, results)
        verdict = ""
        if told.get("test_interval") and results.get("test_interval"):
            (low, high), (least, most) = told["test_interval"], results["test_interval"]
            apart = high < least or most < low
            verdict = "; the intervals do not overlap" if apart else "; the intervals overlap"
        yield f"{name}, trained alike, reaches {reached}{verdict}."


class Practice(NamedTuple):
    """A line of the checklist. mark: a key of MARKS."""

    practice: str
    mark: str
    here: str
    note: str

    @property
    def sign(self) -> str:
        return MARKS[self.mark]


def checklist(results: Results) -> list[Practice]:
    """That of Lindauer and Hutter 2020, arXiv:1909.02453, as far as one run can answer it."""
    reads = results["test_reads"]
    drawn = bool(of_random_ones(results))
    over_time, table = "search" in results["seconds"], bool(results["benchmark"])
    times = f"read {reads} {'time' if reads == 1 else 'times'}, after training" if reads else ""
    rows = (
        ("code and configuration of search and final training are at hand", "yes", "yes",
         "at the end of this page"),
        ("the seed is known", "yes", "yes", str(results["seed"])),
        ("the test split steered nothing", "yes", "by construction", times or "not read"),
        ("the same space and recipe for all that is compared", "yes", "by construction",
         "task=compare keeps recipes apart"),
        ("several seeds", "no", "not in one run", "run -m seed=0,1,2, then task=compare"),
        ("random search beside it", *_if(drawn), "baseline=random, or strategy=random"),
        ("performance over time", *_if(over_time),
         "the charts above" if over_time else "there was no search"),
        ("the whole time is reported", "yes", "yes", "search and training, without tuning"),
        ("how hyper-parameters were tuned", "ask", "not known to the program", "say it"),
        ("a tabular benchmark", *_if(table),
         "the table above" if table else f"benchmark.table=..., for space={', '.join(FORMS)}"),
    )  # fmt: skip
    return [Practice(*row) for row in rows]


def _if(answer: bool) -> tuple[str, str]:
    return ("yes", "yes") if answer else ("no", "no")
