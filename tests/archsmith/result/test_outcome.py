"""When a test accuracy means little: intervals by hand, and networks that answer one class."""

import logging
import math
from pathlib import Path

import pytest

from archsmith.cli.messages import result_summary
from archsmith.result.outcome import outcome, wilson
from archsmith.train.doubts import warnings_kept
from archsmith.train.record import Results

CLASSES = ["cat", "dog", "fox", "owl"]


def measures(**changes: float) -> dict[str, float]:
    """50 right of 80 images, 20 of each class."""
    return {
        "accuracy": 0.625, "balanced_accuracy": 0.625, "images": 80, "commonest_answer": 1,
        "commonest_share": 0.3, "commonest_true": 0.25, "largest_class": 0.25,
    } | changes  # fmt: skip


def test_a6_wilsons_interval_by_hand():
    # z^2/n = 3.8415/80 = 0.04802; middle (0.625 + 0.02401) / 1.04802 = 0.61927
    # half: 1.95996 sqrt(0.234375/80 + 0.04802/320) / 1.04802 = 0.10379
    assert wilson(0.625, 80) == pytest.approx((0.51548, 0.72306), abs=1e-4)
    assert wilson(1.0, 10) == pytest.approx((1 / 1.38415, 1.0), abs=1e-4)


def test_a6_an_accuracy_that_means_something_is_not_doubted():
    found = outcome(measures(), CLASSES)
    assert found["test_doubt"] is None
    assert (found["test_images"], found["test_commonest_share"]) == (80, 0.3)


def test_a_text_is_measured_in_bits_and_has_no_interval():
    found = outcome(measures(loss=1.5 * math.log(2)), CLASSES, text=True)
    assert found["test_bits_per_character"] == pytest.approx(1.5)
    assert found["test_interval"] is None
    doubted = outcome(measures(loss=1.0, accuracy=0.25, commonest_share=1.0), CLASSES, text=True)
    assert "for 80 of 80 test characters" in doubted["test_doubt"]
    assert outcome(measures(), CLASSES)["test_bits_per_character"] is None


def test_a6_one_answer_for_all_images_is_said():
    found = outcome(measures(accuracy=0.25, commonest_share=1.0), CLASSES)
    assert "answers 'dog' for 80 of 80 test images, of which 20 are" in found["test_doubt"]


def test_a6_a_class_that_is_common_may_be_answered_often():
    common = measures(accuracy=0.97, commonest_share=0.91, commonest_true=0.9, largest_class=0.9)
    assert outcome(common | {"images": 1000}, CLASSES)["test_doubt"] is None


def test_a6_what_guessing_does_as_well_is_said():
    found = outcome(measures(accuracy=0.3), CLASSES)  # 21% to 41%
    assert "always answering the largest class (25.00%)" in found["test_doubt"]


def test_a6_the_last_lines_say_it(tmp_path: Path):
    results = Results(tmp_path).fields | outcome(measures(accuracy=0.3), CLASSES)
    results |= {"strategy": "darts", "undecided": "the gates are undecided"}
    said = result_summary(results, tmp_path, ["archsmith task=compare"])
    beware = [line for line in said.splitlines() if line.startswith("  beware: ")]
    assert len(beware) == 2
    assert "beware: the gates are undecided" in said
    assert "30.00% (95% interval 21.06% to 40.77%, 80 images)" in said


def test_c10_what_was_warned_of_is_kept_once():
    with warnings_kept() as kept:
        for _ in range(2):
            logging.getLogger("archsmith.train.epochs").warning("%s: not learning", "baseline")
        logging.getLogger("archsmith").info("epoch 1")
    logging.getLogger("archsmith").warning("later")
    assert kept.lines == ["baseline: not learning"]


def test_f01_what_was_warned_of_before_a_run_was_killed_is_still_there(tmp_path: Path):
    log = logging.getLogger("archsmith")
    with warnings_kept() as kept:
        log.warning("before the folder is known")
        kept.keep_in(Results(tmp_path))
        log.warning("collapse")  # and killed
    with warnings_kept() as kept:
        log.warning("before the folder is known")
        kept.keep_in(Results(tmp_path))
        log.warning("not learning")
    expected = ["before the folder is known", "collapse", "not learning"]
    assert Results(tmp_path).fields["warnings"] == expected
