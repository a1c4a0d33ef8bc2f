"""Architectures in the form of NNI's model spaces."""

import pytest

from search_spaces.architecture import Architecture
from search_spaces.darts import CANDIDATES, darts
from search_spaces.genotype import PUBLISHED, from_nasbench201, to_nni
from search_spaces.nasbench201 import CANDIDATES as NB201
from search_spaces.nasbench201 import nasbench201


def test_the_published_darts_cell_by_hand():
    found = to_nni(Architecture.load(PUBLISHED / "DARTS_V2.json"))
    assert len(found) == 32
    assert found["normal/op_2_0"] == "sep_conv_3x3"
    assert found["normal/input_2_0"] == [0]
    assert found["normal/op_5_1"] == "dil_conv_3x3"
    assert found["normal/input_5_1"] == [2]
    assert found["reduce/op_2_0"] == "max_pool_3x3"


def test_a_nasbench201_cell_by_hand():
    space = nasbench201(
        layers=5, nodes=3, channels=4, candidates=list(NB201), input_shape=(3, 8, 8), classes=3
    )
    text = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|"
    assert to_nni(from_nasbench201(text, space)) == {
        "cell/0_1": "conv_3x3", "cell/0_2": "none", "cell/1_2": "skip_connect",
        "cell/0_3": "avg_pool_3x3", "cell/1_3": "conv_1x1", "cell/2_3": "none",
    }  # fmt: skip


def test_what_nni_has_no_space_for_is_refused():
    space = darts(
        layers=3, nodes=2, channels=4, candidates=list(CANDIDATES), input_shape=(3, 8, 8), classes=3
    )
    with pytest.raises(ValueError, match="NNI form: there is one for"):
        to_nni(Architecture.of(space, {"normal": {}, "reduce": {}}))
    whole = darts(
        layers=3, nodes=4, channels=4, candidates=list(CANDIDATES), input_shape=(3, 8, 8), classes=3
    )
    with pytest.raises(ValueError, match="fewer than two inputs"):
        to_nni(Architecture.of(whole, {"normal": {}, "reduce": {}}))


def test_nni_builds_the_same_networks():
    hub = pytest.importorskip(
        "nni.nas.hub.pytorch", reason="nni.nas needs pytorch-lightning: pip install '.[nas]'"
    )
    architecture = Architecture.load(PUBLISHED / "DARTS_V2.json")
    net = hub.DARTS(width=36, num_cells=20, dataset="cifar").freeze(to_nni(architecture))
    counted = sum(p.numel() for n, p in net.named_parameters() if "aux" not in n)
    assert counted == 3_349_342
