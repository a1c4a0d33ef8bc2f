"""Networks that users write become spaces, exactly, or are refused with a reason."""

import pytest
import torch
import users_networks

from archsmith.result.export.literals import literal
from search_spaces.architecture import Architecture
from search_spaces.from_model import WIDTH, FromModelSpace, from_model
from strategies.searchers.random import RandomSearch
from supernets import from_model as networks
from supernets.costs import macs, parameters
from supernets.mixed_op import MixedOp
from supernets.mixture import Mixture
from supernets.network import started, supernet
from supernets.traced import TracedNetwork

CPU = torch.device("cpu")
X = torch.rand(2, 1, 6, 7, generator=torch.Generator().manual_seed(0))
ROWS = {  # the groups that may be narrower
    "AsNumpy": 3, "AnyDimension": 1, "Named": 2, "SharedNorms": 0, "NormOfMaps": 1,
    "NormByFunction": 2, "Twice": 1, "ReadElsewhere": 1, "Counted": 1, "Attributes": 1,
    "Batched": 2, "Constants": 1, "Numbers": 3, "Optional": 2, "Depth": 1, "InPlace": 2,
}  # fmt: skip


def users(name: str, **changes) -> FromModelSpace:
    sizes = {"weights": None, "divisor": 1, "most": 8, "importance": "l2", "classes": 3}
    given = sizes | {"model": f"users_networks:{name}", "input_shape": (1, 6, 7)} | changes
    return from_model(**given)


def some(given: FromModelSpace, seed: int) -> Architecture:
    torch.manual_seed(seed)
    return RandomSearch(given).ask()


def test_a_network_that_is_made_once_keeps_its_weights():
    before = {name: w.clone() for name, w in users_networks.network.state_dict().items()}
    found = networks.trained(users("kept"))
    assert all(torch.equal(found[name], w) for name, w in before.items() if name in found)
    assert all(torch.equal(w, before[n]) for n, w in users_networks.network.state_dict().items())


@pytest.mark.parametrize("name", [name for name in ROWS if ROWS[name]])
def test_it_is_the_network_itself_and_its_masks_are_its_cuts(name: str):
    given = users(name)
    assert len(given.widths) == ROWS[name]
    full = started(given, Architecture.of(given, given.unpruned)).eval()
    original = networks.made(f"users_networks:{name}", 3).eval()
    assert torch.equal(full(X), original(X))
    net = supernet(given, MixedOp).eval()
    for seed in range(3):
        architecture = some(given, seed)
        smaller = started(given, architecture).eval()
        expected = smaller(X)
        found = net(X, Mixture.of(architecture, given, CPU))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        options = {WIDTH: [o for (o,) in architecture.kept(given)[WIDTH]]}
        counted = networks.FromModel().counts(given, options)
        assert counted == {"params": parameters(smaller), "macs": macs(smaller)}
        written = eval(literal(networks.layout_of(given, architecture)))
        again = TracedNetwork(written).eval()
        again.load_state_dict(smaller.state_dict())
        assert torch.equal(again(X), expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("SharedNorms", "no channels of .* can be cut: 'GroupNorm'"),
        ("Hooked", "gives other logits than its steps .* hooks"),
        ("TwoInputs", "its forward also takes 'y'"),
        ("Sized", "takes more than num_classes .*'width'"),
        ("network", "is a Plain, expected a function that returns the network"),
    ],
)
def test_what_cannot_be_converted_is_refused(name: str, message: str):
    with pytest.raises(ValueError, match=f"^model: .*{message}"):
        users(name)


@pytest.mark.parametrize("name", ["fcn_resnet50", "raft_small"])
def test_networks_that_do_not_classify_are_refused_and_nothing_is_downloaded(name: str):
    with pytest.raises(ValueError, match=r"torchvision has no .* that classifies images"):
        networks.made(name, 3)


def test_published_weights_for_transformed_images_are_refused():
    with pytest.raises(ValueError, match="expect images that it transforms by itself"):
        networks.weights_file("googlenet", None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {f"module.{n}": t for n, t in state.items()}, "first tensor is 'module.st"),
        (lambda state: {"net": state, "epoch": 3}, r"no state dict but \['net', 'epoch'\]; save"),
        (lambda state: users_networks.network, "cannot be read as a state dict .*; write it with"),
    ],
)
def test_a_file_of_another_form_is_refused_with_what_it_holds(tmp_path, change, message: str):
    torch.save(change(users_networks.network.state_dict()), tmp_path / "given.pt")
    with pytest.raises(ValueError, match=f"^weights: .*given.pt .*{message}"):
        supernet(users("Plain", weights=str(tmp_path / "given.pt")), MixedOp)


def test_constants_come_from_the_code_and_the_rest_from_the_file(tmp_path):
    """Buffers that no state dict holds, and one that is computed with before it meets images."""
    net = users_networks.Constants().eval()
    net.mean.fill_(7.0)
    torch.save(net.state_dict(), tmp_path / "given.pt")
    given = users("Constants", weights=str(tmp_path / "given.pt"))
    full = started(given, Architecture.of(given, given.unpruned)).eval()
    assert torch.equal(full(X), net(X))
    assert full.state_dict()["net.mean"].item() == 7.0
