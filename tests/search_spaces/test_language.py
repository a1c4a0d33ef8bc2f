"""The language: what a program may become, and in which order it asks."""

import pytest

from search_spaces.decisions import count, models, replay
from search_spaces.language import (
    Compound,
    Layer,
    concat,
    dependent,
    hyperparameter,
    layer,
    maybe_swap,
    optional,
    or_,
    repeat,
    repeat_tied,
    residual,
    sequence,
    substitution,
)


def conv(*filters):
    return layer("conv", filters=hyperparameter("filters", *filters))


def asked(space, *indices):
    """The names of the decisions of a model."""
    found = next(d for _, d in models(space) if tuple(i for _, i in d) == indices)
    return [name for name, _ in found]


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (optional("use", conv(8, 16)), 3),
        (repeat("times", conv(8, 16), (1, 2, 3)), 14),
        (repeat_tied("times", conv(8, 16), (1, 2, 3)), 6),
        (maybe_swap("order", layer("conv"), layer("pool")), 2),
    ],
    ids=["optional", "repeat", "repeat_tied", "maybe_swap"],
)
def test_deeparchitect_1_counts(space, expected):
    found = list(models(space))
    assert count(space) == len(found) == len({m for m, _ in found}) == expected


def test_a_choice_with_one_value_is_never_asked():
    space = sequence(conv(8), repeat("times", conv(4, 8), (2,)), or_("kind", pool=layer("pool")))
    assert [*space.hyperparameters] == ["times[0]/filters", "times[1]/filters"]
    assert [name for name, _ in next(models(space))[1]] == ["times[0]/filters", "times[1]/filters"]


def test_decisions_are_asked_in_the_order_of_the_program_and_only_where_they_are_met():
    space = sequence(
        or_("kind", conv=conv(8, 16), pool=layer("pool", size=hyperparameter("size", 2, 3))),
        optional("drop", layer("dropout", rate=hyperparameter("rate", 0.25, 0.5))),
    )
    assert asked(space, 0, 0, 0) == ["kind", "filters", "drop"]
    assert asked(space, 1, 1, 1, 0) == ["kind", "size", "drop", "rate"]
    assert [*space.hyperparameters] == ["kind", "filters", "size", "drop", "rate"]


def test_a_sub_space_is_not_evaluated_before_it_is_chosen():
    def deep(depth):
        return substitution(lambda _: deep(depth + 1), hyperparameter(f"again{depth}", 0, 1))

    first = sequence(layer("conv"), deep(0)).first
    assert (first.name, first.values) == ("again0", (0, 1))


def test_a_dependent_hyperparameter_follows_others_and_is_no_choice():
    width = hyperparameter("width", 8, 16)
    space = sequence(
        layer("conv", filters=width),
        layer("conv", filters=dependent(lambda w: 2 * w, width)),
    )
    assert count(space) == 2
    assert [[part["filters"] for part in model.parts] for model, _ in models(space)] == [
        [8, 16],
        [16, 32],
    ]


def test_a_substitution_hands_a_value_to_every_copy():
    space = substitution(
        lambda width: repeat("times", layer("conv", filters=width, kernel=odd()), (1, 2)),
        hyperparameter("width", 8, 16),
    )
    assert count(space) == 2 * (2 + 4)
    chosen = [("width", 1), ("times", 1), ("times[0]/kernel", 0), ("times[1]/kernel", 1)]
    model = replay(space, chosen)
    first, second = model.parts
    assert (first["filters"], first["kernel"]) == (16, 3)
    assert (second["filters"], second["kernel"]) == (16, 5)


def odd():
    return hyperparameter("kernel", 3, 5)


def test_a_sub_space_that_comes_later_knows_the_values_chosen_before():
    kernel = odd()
    later = or_("kind", conv=layer("conv", kernel=kernel), pool=layer("pool"))
    space = sequence(layer("conv", kernel=kernel), later)
    assert count(space) == 4
    model = replay(space, [("kernel", 1), ("kind", 0)])
    assert [part["kernel"] for part in model.parts] == [5, 5]


def test_tied_copies_are_equal_and_nested_copies_decide_apart():
    inner = repeat("inner", conv(8, 16), (1, 2))
    tied, apart = (f("outer", inner, (2,)) for f in (repeat_tied, repeat))
    assert count(tied) == 6
    assert count(apart) == 36
    assert all(model.parts[0] == model.parts[1] for model, _ in models(tied))
    assert "outer[1]/inner[0]/filters" in apart.hyperparameters


def test_residual_and_concat_stand_in_the_model():
    space = residual(concat(conv(8, 16), optional("use", layer("pool"))))
    model = replay(space, [("filters", 0), ("use", 0)])
    assert model == Compound(
        "residual",
        (Compound("concat", (Layer.of("conv", filters=8), Compound("sequence", ()))),),
    )
    assert model.first is None


def test_training_settings_may_be_part_of_a_space():
    space = sequence(layer("training", rate=hyperparameter("rate", 0.1, 0.01)), conv(8, 16))
    assert count(space) == 4


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: hyperparameter("f"), "'f': expected at least one value, found none"),
        (lambda: hyperparameter("f", 8, 8), "'f': a value is given twice: 8, 8"),
        (lambda: or_("kind"), "'kind': expected at least one value, found none"),
        (lambda: repeat("r", conv(8), (1, -1)), "'r': expected counts of at least 0, found -1"),
        (
            lambda: sequence(conv(8, 16), conv(8, 32)).hyperparameters,
            "'filters': the same name has values 8, 16 and 8, 32; rename one",
        ),
        (
            lambda: substitution(lambda w: w, 8),
            "substitution: expected a module for values 8, found 8",
        ),
    ],
)
def test_a_wrong_program_is_refused(made, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        made()
