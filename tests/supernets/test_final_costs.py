import pytest
import torch

from strategies.searchers.random import RandomSearch
from supernets.costs import macs, parameters
from supernets.final_costs import final_costs
from supernets.network import final_network


@pytest.mark.slow
@pytest.mark.parametrize("toy", ["toy_darts", "toy_nasbench201"])
@pytest.mark.parametrize("side", [16, 9])
def test_costs_of_candidates_add_up_to_those_of_the_network(toy: str, side: int, request):
    space = request.getfixturevalue(toy).resize(input_shape=(1, side, side), classes=3)
    costs, draw = final_costs(space), RandomSearch(space)
    for _ in range(6):
        architecture = draw.ask()
        with torch.device("meta"):
            net = final_network(space, architecture, auxiliary=side == 16)
        assert costs["params"].of(architecture, space) == parameters(net)
        assert costs["macs"].of(architecture, space) == macs(net)


def test_a_candidate_by_hand(toy_nasbench201):
    """A 3x3 convolution of c channels: 9 c^2 and batch norm 2 c; c = 8, 16, 32 on 16, 8, 4."""
    costs = final_costs(toy_nasbench201)
    names = toy_nasbench201.cells["cell"].edges[0].names
    conv, skip = names.index("nor_conv_3x3"), names.index("skip_connect")
    sizes = [(8, 16), (16, 8), (32, 4)]
    assert costs["params"].tables["cell"][0, conv] == sum(9 * c * c + 2 * c for c, _ in sizes)
    assert costs["macs"].tables["cell"][0, conv] == sum(9 * c * c * s * s for c, s in sizes)
    assert costs["params"].tables["cell"][0, skip] == 0
