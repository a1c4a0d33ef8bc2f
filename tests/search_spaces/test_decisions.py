"""Decisions of a program: drawn, replayed, mutated, counted."""

from collections import Counter
from random import Random

import pytest
from scipy.stats import chisquare

from search_spaces.decisions import count, draw, draw_model, models, mutate, replay
from search_spaces.language import (
    concat,
    hyperparameter,
    layer,
    maybe_swap,
    optional,
    or_,
    repeat,
    repeat_tied,
    residual,
    sequence,
)


def conv():
    return layer("conv", filters=hyperparameter("filters", 8, 16))


# 12 models: of 8 ways through the stages of "deep" each is 1/16 likely if choices are uniform
UNEVEN = or_(
    "kind",
    shallow=layer("conv", filters=hyperparameter("width", 4, 8, 16, 32)),
    deep=repeat("deep", conv(), (3,)),
)
RICH = sequence(
    repeat("stem", conv(), (1, 2, 3)),
    residual(maybe_swap("order", layer("relu"), optional("norm", layer("norm")))),
    concat(repeat_tied("tied", conv(), (1, 2)), or_("kind", conv=conv(), pool=layer("pool"))),
)


def test_deeparchitect_1_a_thousand_models_are_replayed():
    rng = Random(0)
    for _ in range(1000):
        decisions = draw(RICH, rng)
        again = replay(RICH, decisions)
        assert again.first is None
        assert decisions == dict_of(RICH)[again]


def dict_of(space, known={}):  # noqa: B006
    """Model -> its decisions, found by enumeration."""
    if not known:
        known |= dict(models(space))
    return known


def test_all_models_are_enumerated_once():
    found = list(models(RICH))
    assert count(RICH) == len(found) == len({d for _, d in found}) == 14 * 4 * 4 * 3


@pytest.mark.parametrize(
    ("drawn", "shares"),
    [(draw, [1 / 8] * 4 + [1 / 16] * 8), (draw_model, [1 / 12] * 12)],
    ids=["choices", "models"],
)
def test_deeparchitect_2_draws_are_uniform_over(drawn, shares):
    rng, draws = Random(1), 2400
    found = Counter(drawn(UNEVEN, rng) for _ in range(draws))
    seen = [found[decisions] for _, decisions in models(UNEVEN)]
    assert chisquare(seen, [draws * share for share in shares]).pvalue > 0.001
    other = [1 / 12] * 12 if shares[0] == 1 / 8 else [1 / 8] * 4 + [1 / 16] * 8
    assert chisquare(seen, [draws * share for share in other]).pvalue < 1e-6


def test_the_same_seed_draws_the_same():
    assert draw(RICH, Random(3)) == draw(RICH, Random(3))
    assert draw_model(RICH, Random(3)) == draw_model(RICH, Random(3))


def test_a_space_too_large_to_enumerate_is_counted():
    block = sequence(conv(), optional("use", layer("pool")))
    space = repeat("depth", block, (10, 20, 200))
    assert count(space) == 4**10 + 4**20 + 4**200
    drawn = draw_model(repeat("depth", block, (10, 20)), Random(0))
    assert drawn[0] == ("depth", 1)  # all but one in 4^10 models are deep


def test_a_mutation_changes_one_decision_and_keeps_the_others_that_are_met():
    rng = Random(0)
    for _ in range(100):
        parent = draw(RICH, rng)
        child = mutate(RICH, parent, rng)
        assert replay(RICH, child).first is None
        before, after = dict(parent), dict(child)
        both = before.keys() & after.keys()
        assert sum(before[name] != after[name] for name in both) == 1


def test_every_decision_may_be_mutated_alike():
    space = sequence(*(layer("a", b=hyperparameter(name, 1, 2, 3)) for name in "wxyz"))
    rng, parent = Random(0), tuple((name, 0) for name in "wxyz")
    children = [mutate(space, parent, rng) for _ in range(800)]
    changed = Counter((name, i) for child in children for name, i in set(child) - set(parent))
    assert chisquare([changed[name, i] for name in "wxyz" for i in (1, 2)]).pvalue > 0.001


@pytest.mark.parametrize(
    ("decisions", "said"),
    [
        ([("kind", 0)], "decision 1: expected 'width', found the end"),
        ([("size", 0)], "decision 0: expected 'kind', found 'size'"),
        ([("kind", 2)], "decision 0: expected an index of 'kind' from 0 to 1, found 2"),
        ([("kind", -1)], "decision 0: expected an index of 'kind' from 0 to 1, found -1"),
        ([("kind", 0), ("width", 1), ("x", 0)], "decision 2: expected the end, found 'x'"),
    ],
)
def test_decisions_that_do_not_fit_are_refused(decisions, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        replay(UNEVEN, decisions)


def test_a_space_without_decisions_has_no_mutation():
    with pytest.raises(ValueError, match=r"^mutate: .* one model"):
        mutate(layer("conv"), (), Random(0))
