from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from archsmith.data.preprocessing import Preprocessing
from archsmith.errors import ConfigError
from archsmith.result.fit import Fit
from archsmith.result.limits import Budget
from archsmith.result.network import final_space, load_final, save_final
from archsmith.result.recipe import Recipe
from search_spaces.architecture import Architecture
from search_spaces.chains import chain
from search_spaces.darts import darts
from search_spaces.resnets import tas
from search_spaces.space import Space
from supernets.network import final_network

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


def test_channels_that_change_the_options_are_refused_by_name():
    """Of 4 channels, the share 0.3 is the width of 0.4."""
    shapes = dict(input_shape=(1, 8, 8), classes=2)
    space = tas(depth=8, channels=16, widths=[0.3, 0.4, 1], **shapes)
    assert final_space(space, replace(TOY, channels=32)).settings["channels"] == 32
    with pytest.raises(ConfigError, match=r"^retrain\.channels: found 4, .* space tas .*=null$"):
        final_space(space, replace(TOY, channels=4))


def per_cell(layers: int) -> Space:
    return darts(
        layers=layers, nodes=1, channels=4, candidates=["skip_connect", "max_pool_3x3"],
        share_alphas=False, input_shape=(1, 8, 8), classes=2,
    )  # fmt: skip


def alternating(space: Space) -> Architecture:
    names = ["skip_connect", "max_pool_3x3"]
    kept = {n: {"0-2": [names[i % 2]]} for i, n in enumerate(space.choices)}
    return Architecture.of(space, kept)


def test_cells_of_single_layers_are_repeated_in_a_deeper_final_network():
    space = per_cell(8)
    final = final_space(space, replace(TOY, layers=20, channels=4))
    net = final_network(final, alternating(space))
    kinds = [type(place.module.ops[0]).__name__ for place in net.places()]
    genes = [0, 1] * 3 + [2] + [3, 4] * 3 + [5] + [6, 7] * 3
    shallow = final_network(space, alternating(space))
    own = [type(place.module.ops[0]).__name__ for place in shallow.places()]
    assert kinds == [own[gene] for gene in genes]
    assert len(set(own)) > 1
    assert net(torch.randn(2, 1, 8, 8)).shape == (2, 2)


def test_fewer_layers_than_cells_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"^retrain\.layers: found 5, but each of the 8 layers"):
        final_space(per_cell(8), replace(TOY, layers=5))


def test_the_weights_of_a_repeated_network_are_loaded_again(tmp_path: Path):
    space, recipe = per_cell(5), replace(TOY, layers=8, channels=4)
    architecture = alternating(space)
    net = final_network(final_space(space, recipe), architecture)
    data: Any = SimpleNamespace(
        name="toy",
        preprocessing=Preprocessing(("a", "b"), (1, 8, 8), (0.5,), (0.5,)),
    )
    file = tmp_path / "weights.safetensors"
    save_final(net, file, architecture, data, recipe)
    found = load_final(file, space, architecture).net
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(found.eval()(x), net.eval()(x))


def test_a_budget_for_a_repeated_network_is_refused():
    budget = Budget(params=1000, macs=None, latency_ms=None, latency_batch=1)
    with pytest.raises(ConfigError, match=r"^budget: the 5 cells .* of 8, .*retrain\.layers=null"):
        Fit(budget, per_cell(5), replace(TOY, layers=8), torch.device("cpu"))
