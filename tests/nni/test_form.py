"""Architectures in the form of NNI's model spaces."""

import pytest
import torch

from search_spaces.architecture import Architecture
from search_spaces.darts import CANDIDATES, darts
from search_spaces.genotype import PUBLISHED, from_nasbench201, to_nni
from search_spaces.nasbench201 import CANDIDATES as NB201
from search_spaces.nasbench201 import nasbench201
from supernets.network import final_network


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
    noisy = whole.resize(candidates=["noise", "sep_conv_3x3"])
    cell = {e.name: ("noise",) for e in noisy.cells["normal"].edges if e.source < 2}
    with pytest.raises(ValueError, match="node 2 of 'normal' keeps 'noise'"):
        to_nni(Architecture.of(noisy, {"normal": cell, "reduce": cell}))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DARTS_V2", "PC_DARTS_cifar"])
def test_nni_freezes_the_same_network(name: str):
    """NNI's modules stand in the order of ours, so that weights pass over one by one."""
    hub = pytest.importorskip(
        "nni.nas.hub.pytorch",
        reason="nni.nas needs pytorch-lightning: pip install '.[nas]'",
        exc_type=ImportError,
    )
    architecture = Architecture.load(PUBLISHED / f"{name}.json")
    space = darts(
        layers=5, nodes=4, channels=8, candidates=list(CANDIDATES),
        input_shape=(3, 16, 16), classes=10,
    )  # fmt: skip
    ours = final_network(space, architecture).eval()
    theirs = hub.DARTS(width=8, num_cells=5, dataset="cifar").freeze(to_nni(architecture)).eval()
    for tensor in ours.state_dict().values():  # batch norms that are no identities
        if tensor.is_floating_point():
            tensor.uniform_(0.2, 1.2) if tensor.dim() == 1 else tensor.normal_(0, 0.3)
    names = zip(theirs.state_dict(), ours.state_dict().values(), strict=True)
    theirs.load_state_dict(dict(names))
    x = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(theirs(x), ours(x), rtol=1e-5, atol=1e-5)


def test_nni_counts_the_same_parameters():
    hub = pytest.importorskip(
        "nni.nas.hub.pytorch",
        reason="nni.nas needs pytorch-lightning: pip install '.[nas]'",
        exc_type=ImportError,
    )
    architecture = Architecture.load(PUBLISHED / "DARTS_V2.json")
    net = hub.DARTS(width=36, num_cells=20, dataset="cifar").freeze(to_nni(architecture))
    counted = sum(p.numel() for n, p in net.named_parameters() if "aux" not in n)
    assert counted == 3_349_342
