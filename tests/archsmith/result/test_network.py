from dataclasses import replace

import pytest

from archsmith.errors import ConfigError
from archsmith.result.network import final_space
from archsmith.result.recipe import Recipe
from search_spaces.chains import chain

TOY = Recipe(
    layers=None, channels=8, stem=None, epochs=3, batch_size=8, lr=0.05, min_lr=0.0,
    schedule="cosine", warmup_epochs=0, momentum=0.9, nesterov=True, weight_decay=1e-3, clip=5.0,
    label_smoothing=0.1, auxiliary_weight=0.0, drop_path=0.0, crop=2, flip=True, cutout=4, ema=None,
    precision="float32",
)  # fmt: skip


def test_the_blocks_of_a_chain_are_never_dropped():
    space = chain(
        layers=3, channels=4, widths=[1, 2], candidates=["sep_conv_3x3"], input_shape=(1, 8, 8),
        classes=2,
    )  # fmt: skip
    assert [b.c_out for b in final_space(space, TOY).chain.blocks] == [8, 8, 16]
    with pytest.raises(ConfigError, match=r"retrain\.drop_path: expected 0 in space chain"):
        final_space(space, replace(TOY, drop_path=0.2))


@pytest.mark.parametrize("layers", [2, 4])
def test_a_space_whose_layers_decide_for_themselves_keeps_their_number(layers: int):
    space = chain(
        layers=3, channels=4, widths=[1, 2], candidates=["sep_conv_3x3"], input_shape=(1, 8, 8),
        classes=2,
    )  # fmt: skip
    with pytest.raises(ConfigError, match=rf"retrain\.layers: {layers}, .* has the 3 layers"):
        final_space(space, replace(TOY, layers=layers))
    assert len(final_space(space, replace(TOY, layers=3)).layers) == 3
