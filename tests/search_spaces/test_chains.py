import pytest

from search_spaces.chains import ChainSpace, chain

SIZES = dict(layers=5, channels=8, widths=[1, 1.5, 2.5], candidates=["sep_conv_3x3", "none"])


def made(**changes) -> ChainSpace:
    return chain(**(SIZES | dict(input_shape=(3, 16, 16), classes=4) | changes))


def test_blocks_by_hand():
    """Five blocks in three stages: 2, 2, 1; a stage changes its width and halves in its first."""
    blocks = made().chain.blocks
    assert [(b.c_in, b.c_out, b.stride) for b in blocks] == [
        (8, 8, 1), (8, 8, 1), (8, 12, 2), (12, 12, 1), (12, 20, 2),
    ]  # fmt: skip
    assert [b.name for b in blocks] == ["0-1", "1-2", "2-3", "3-4", "4-5"]


def test_a_chain_keeps_one_option_of_every_block_and_is_cut_by_none_left_out():
    (choice,) = made().choices.values()
    assert choice.keep == 1
    assert choice.outputs == (5,)
    assert choice.offers(zero=False)[0] == [True, False]
    names = {row.name for row in choice.rows}
    assert choice.connects(names)
    assert not any(choice.connects(names - {name}) for name in names)


def test_another_width_of_the_stem_scales_all():
    blocks = made().resize(channels=16).chain.blocks
    assert [b.c_out for b in blocks] == [16, 16, 24, 24, 40]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": 2}, "widths: expected 1 to 2, at most one per layer, found 3"),
        ({"widths": []}, "widths: expected 1 to 5"),
        ({"widths": [1, 0]}, "widths: expected a list"),
        ({"widths": [True]}, "widths: expected a list"),
        ({"widths": 2}, "widths: expected a list"),
        ({"candidates": ["conv_9x9"]}, "unknown 'conv_9x9'"),
        ({"candidates": ["none"]}, "has only 'none'"),
        ({"channels": 0}, "channels: expected a whole number of at least 1"),
    ],
)
def test_a_wrong_size_is_one_line(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        made(**changes)
