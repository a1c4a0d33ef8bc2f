import subprocess
import sys

import pytest
import torch
from helpers import ROOT
from torch import nn

from archsmith.result.weights import load_weights, read_metadata, save_weights, weights_of
from search_spaces.architecture import Architecture
from supernets.network import final_network

KEPT = {"0-2": ["sep_conv_3x3"], "1-2": ["skip_connect"], "2-3": ["dil_conv_5x5"]}
AGAIN = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from pathlib import Path
from archsmith.result.weights import load_weights
torch.set_num_threads(1)
net = torch.load(sys.argv[2] + "/net.pt", weights_only=False)
load_weights(net, Path(sys.argv[2]) / "weights.safetensors")
x = torch.load(sys.argv[2] + "/x.pt", weights_only=True)
torch.save(net.eval()(x), sys.argv[2] + "/logits.pt")
"""


def chosen(space, **kwargs):
    return final_network(space, Architecture.of(space, dict.fromkeys(space.groups, KEPT)), **kwargs)


def test_weights_come_back_bit_for_bit_with_what_they_say_of_themselves(toy_darts, tmp_path):
    net, other = chosen(toy_darts), chosen(toy_darts)
    save_weights(net, tmp_path / "w.safetensors", {"archsmith": "{}"})
    load_weights(other, tmp_path / "w.safetensors")
    for name, tensor in weights_of(net).items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    assert read_metadata(tmp_path / "w.safetensors") == {"archsmith": "{}"}


def test_equal_weights_give_equal_bytes(toy_darts, tmp_path):
    net = chosen(toy_darts).to(memory_format=torch.channels_last)
    for name in "ab":
        save_weights(net, tmp_path / name, {"archsmith": "{}"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_auxiliary_head_is_neither_written_nor_expected(toy_darts, tmp_path):
    net = chosen(toy_darts, auxiliary=True)
    save_weights(net, tmp_path / "w.safetensors", {})
    load_weights(chosen(toy_darts), tmp_path / "w.safetensors")
    load_weights(chosen(toy_darts, auxiliary=True), tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Linear(3, 2), r"'weight' has shape \(2, 4\), expected \(2, 3\)"),
        (nn.Linear(4, 2, bias=False), r"'bias' has shape \(2,\), expected no such tensor"),
        (nn.BatchNorm1d(2), r"'num_batches_tracked' has shape none, it is absent, expected \(\)"),
    ],
)
def test_what_does_not_fit_is_named(net, message, tmp_path):
    save_weights(nn.Linear(4, 2), tmp_path / "w.safetensors", {})
    before = weights_of(net)
    with pytest.raises(ValueError, match=message):
        load_weights(net, tmp_path / "w.safetensors")
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_a_file_that_is_no_weights_is_one_line(tmp_path):
    torch.save({}, tmp_path / "w.safetensors")
    for read in (read_metadata, lambda path: load_weights(nn.Linear(1, 1), path)):
        with pytest.raises(ValueError, match="not a readable safetensors file") as error:
            read(tmp_path / "w.safetensors")
        assert "\n" not in str(error.value)
        with pytest.raises(ValueError, match="no file"):
            read(tmp_path / "nowhere")


@pytest.mark.slow
def test_logits_are_equal_to_the_last_digit_in_a_fresh_process(toy_darts, tmp_path):
    net, x = chosen(toy_darts).eval(), torch.randn(4, 3, 16, 16)
    save_weights(net, tmp_path / "weights.safetensors", {})
    torch.save(x, tmp_path / "x.pt")
    expected = net(x)
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    torch.save(net, tmp_path / "net.pt")  # its structure; the weights come from their own file
    subprocess.run([sys.executable, "-c", AGAIN, ROOT, tmp_path], check=True)
    assert torch.equal(torch.load(tmp_path / "logits.pt", weights_only=True), expected)
