"""What the report says in words, with numbers worked out by hand."""

from typing import Any

import pytest

from archsmith.result.report.words import checklist, finding, headline, title
from archsmith.train.record import RESULTS


def results(**fields: Any) -> dict[str, Any]:
    about = {"strategy": "darts_pt", "space": "nasbench201", "data": "digits", "seed": 4}
    return dict.fromkeys(RESULTS) | about | {"seconds": {"search": 1.0}, "test_reads": 0} | fields


TESTED = {"test_accuracy": 0.9789, "test_images": 540, "test_interval": [0.9647, 0.9892]}
RIGHT = "The found network classifies 97.9% of the 540 test images right"


def random(*accuracies: float) -> dict[str, Any]:
    return {f"random_{i}": {"drawn": {}, "test_accuracy": a} for i, a in enumerate(accuracies)}


def test_the_title_is_in_words():
    assert title(results()) == "DARTS PT strategy, NASBENCH201 space, digits, seed 4"
    assert title(results(), given=True) == "NASBENCH201 space, digits, seed 4"


def test_a_tested_network_with_its_interval():
    assert finding(results(**TESTED)) == f"{RIGHT} (95% interval 96.5 to 98.9%)."
    assert headline(results(**TESTED)) == ("test_accuracy", "97.9%", "of the test images right")


def test_many_images_have_two_decimal_places():
    told = {"test_accuracy": 0.97891, "test_images": 10000, "test_interval": [0.97, 0.98]}
    assert finding(results(**told)) == (
        "The found network classifies 97.89% of the 10,000 test images right "
        "(95% interval 97.00 to 98.00%)."
    )


def test_an_older_run_has_no_interval_and_none_is_invented():
    assert finding(results(test_accuracy=0.5)) == (
        "The found network classifies 50.00% of the test images right."
    )


def test_a_given_architecture_was_not_found():
    said = finding(results(**TESTED), given=True)
    assert said.startswith("The network of the given architecture classifies 97.9% of")


def test_beside_random_architectures():
    # mean 0.97, standard deviation sqrt((0.01^2 + 0 + 0.01^2) / 2) = 0.01
    said = finding(results(**TESTED, baseline=random(0.96, 0.97, 0.98)))
    assert said == (
        f"{RIGHT} (95% interval 96.5 to 98.9%). Beside it, 3 random architectures of the same "
        "space, trained alike, reach 97.0 ± 1.0% (mean ± standard deviation, n = 3). The found one "
        "is above 2 of them, as a further random one would be with a chance of 2 in 4, so the two "
        "cannot be told apart."
    )


@pytest.mark.parametrize(("count", "told"), [(18, "cannot"), (19, "can")])
def test_above_all_is_a_difference_from_19_on(count: int, told: str):
    said = finding(results(**TESTED, baseline=random(*[0.9] * count)))
    assert f"a chance of 1 in {count + 1}, so the two {told} be told apart" in said
    assert "is above all of them" in said


def test_beside_a_single_random_one():
    said = finding(results(**TESTED, baseline=random(0.99)))
    assert "a random architecture of the same space, trained alike, reaches 99.0% (n = 1)" in said
    assert "is above none of them" in said


@pytest.mark.parametrize(
    ("interval", "told"),
    [([0.90, 0.95], "do not overlap"), ([0.90, 0.97], "overlap"), ([0.99, 1.0], "do not overlap")],
)
def test_beside_a_network_designed_by_hand(interval: list[float], told: str):
    rival = {"test_accuracy": 0.93, "test_interval": interval}
    low, high = (f"{100 * share:.1f}" for share in interval)
    assert finding(results(**TESTED, baseline={"resnet18": rival})).endswith(
        f" resnet18, trained alike, reaches 93.0% (95% interval {low} to {high}%); "
        f"the intervals {told}."
    )


def test_without_retraining_it_is_the_supernet_or_the_table_that_is_known():
    found = results(supernet_accuracy=0.8651)
    assert finding(found) == (
        "The supernet classifies 86.51% of the held-out images right. The found network was not "
        "retrained, so its own accuracy is not known."
    )
    assert headline(found).field == "supernet_accuracy"
    table = {"accuracy": 91.2, "column": "cifar10-valid", "rank": 12, "of": 15625}
    found = results(supernet_accuracy=0.8651, benchmark=table)
    assert finding(found).startswith(
        "The found architecture has an accuracy of 91.20% on cifar10-valid in the benchmark's "
        "table, rank 12 of 15,625."
    )
    found = results(benchmark=table | {"column": "accuracy"})  # as in the table of conv_macro
    assert "an accuracy of 91.20% in the benchmark's table" in finding(found)
    assert headline(results()) is None
    assert finding(results()) == "No network was trained yet, so no accuracy is known."


def test_the_checklist_says_what_one_run_can_know():
    plain = {one.practice: one.sign for one in checklist(results())}
    assert plain["several seeds"] == "–"
    assert plain["random search beside it"] == "–"
    assert plain["how hyper-parameters were tuned"] == "?"
    assert plain["performance over time"] == "✓"
    more = results(baseline=random(0.9), seconds={}, benchmark={"accuracy": 1.0}, test_reads=2)
    full = {one.practice: one for one in checklist(more)}
    assert full["random search beside it"].sign == "✓"
    assert full["a tabular benchmark"].sign == "✓"
    assert full["performance over time"].sign == "–"
    assert full["the test split steered nothing"].note == "read 2 times, after training"


def test_above_none_of_the_random_ones_no_chance_is_told():
    said = finding(results(**TESTED, baseline=random(*[0.99] * 5)))
    assert "The found one is above none of them, so the two cannot be told apart." in said
