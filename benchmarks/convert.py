"""Which classifiers of torchvision become spaces of widths: `python benchmarks/convert.py OUT
[NAME...]`.

Each network has torchvision's random weights, and batch norms with random scales, shifts and
statistics, so that a channel that should be masked and is not shows in the logits. Columns:

- `groups`: groups of channels whose width can be chosen; `frozen`: those that stay whole, without
  that of the logits;
- `gap`: the largest difference of logits between the supernet with one-hot gates and the network
  that is cut, over three architectures (all groups halved, and two at random), and the largest
  logit, float32, 224x224 images (299x299 for inception_v3);
- `same`: whether the network at full width gives the original's logits bit for bit;
- parameters and multiply-accumulates before and after all groups are halved, the latter counted in
  the network that is cut.

Writes `OUT/convert.csv`, a row a network; rows that are there are not measured again.
"""

import argparse
import csv
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from search_spaces.architecture import Architecture  # noqa: E402
from search_spaces.from_model import WIDTH, FromModelSpace, from_model  # noqa: E402
from strategies.searchers.random import RandomSearch  # noqa: E402
from supernets import from_model as networks  # noqa: E402
from supernets.channel_cut import cut, kept_of, order  # noqa: E402
from supernets.costs import macs, parameters  # noqa: E402
from supernets.mixture import Mixture  # noqa: E402

NAMES = (
    "resnet18", "resnet50", "wide_resnet50_2", "resnext50_32x4d", "mobilenet_v2",
    "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0", "efficientnet_v2_s",
    "mnasnet1_0", "googlenet", "inception_v3", "densenet121", "regnet_x_400mf", "regnet_y_400mf",
    "squeezenet1_1", "vgg11_bn", "alexnet", "convnext_tiny", "shufflenet_v2_x1_0", "vit_b_16",
    "swin_t", "maxvit_t",
)  # fmt: skip
FIELDS = (
    "name", "groups", "frozen", "same", "gap", "largest", "parameters", "macs", "halved_parameters",
    "halved_macs", "seconds", "reason",
)  # fmt: skip
CPU = torch.device("cpu")


def disturbed(net: nn.Module) -> nn.Module:
    """Batch norms and layer norms at random, which at first all do the same to every channel."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr,operator]
            module.running_var.uniform_(0.8, 1.25)  # type: ignore[union-attr,operator]
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            module.weight.data.uniform_(0.8, 1.25)
            module.bias.data.normal_(0, 0.1)
        if isinstance(module, nn.Linear) and not module.weight.any():  # a head that starts at zero
            module.weight.data.normal_(0, 0.02)
    return net.eval()


def halved(space: FromModelSpace) -> Architecture:
    """Half of every group, rounded as the options are."""
    rows = space.width.rows
    return Architecture.of(
        space, {WIDTH: {r.name: [r.names[(len(r.names) - 1) // 2]] for r in rows}}
    )


@torch.no_grad()
def row_of(name: str) -> dict[str, Any]:
    """The row of a network; `reason` where it is refused."""
    torch.manual_seed(0)
    start, side = time.monotonic(), 299 if name == "inception_v3" else 224
    shapes = {"input_shape": (3, side, side), "classes": 1000}
    sizes = {"weights": None, "divisor": 1, "most": 8, "importance": "l2"}
    try:
        space = from_model(model=name, **sizes, **shapes)
    except ValueError as error:
        return {"name": name, "reason": str(error)}
    assert isinstance(space, FromModelSpace)
    net, told = disturbed(networks.made(name, 1000)), networks.description(space)
    supernet = networks.SuperTraced(space).eval()
    wanted = supernet.net.state_dict()
    state = {key: tensor for key, tensor in net.state_dict().items() if key in wanted}
    supernet.inherit(state, "l2")
    ordered, x = order(state, told.found, "l2"), torch.randn(2, 3, side, side)

    def final(architecture: Architecture) -> tuple[nn.Module, Tensor]:
        made = networks.FromModel().final(space, architecture, auxiliary=False)
        kept = kept_of(ordered, networks.widths(space, architecture))
        made.net.load_state_dict(cut(state, told.found, kept))
        return made, made.eval()(x)

    original = net(x)
    full, same = final(Architecture.of(space, space.unpruned))
    half, draw, gaps = halved(space), RandomSearch(space), [0.0]
    for architecture in (half, draw.ask(), draw.ask()):
        _, y = final(architecture)
        masked = supernet(x, Mixture.of(architecture, space, CPU))
        gaps.append(float((masked - y).abs().max()))
    smaller, _ = final(half)
    return {
        "name": name, "groups": len(space.widths),
        "frozen": len(told.found.groups) - 1 - len(space.widths),
        "same": torch.equal(original, same), "gap": f"{max(gaps):.1e}",
        "largest": f"{float(original.abs().max()):.3g}",
        "parameters": parameters(full), "macs": macs(full),
        "halved_parameters": parameters(smaller), "halved_macs": macs(smaller),
        "seconds": round(time.monotonic() - start), "reason": "",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    file = given.out / "convert.csv"
    given.out.mkdir(parents=True, exist_ok=True)
    known = list(csv.DictReader(file.open())) if file.is_file() else []
    done = {row["name"] for row in known}
    with file.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, FIELDS)
        if not done:
            writer.writeheader()
        for name in given.names or NAMES:
            if name not in done:
                writer.writerow(row_of(name))
                stream.flush()
    for row in csv.DictReader(file.open()):
        print(*(row[field] or "-" for field in FIELDS), sep=" | ")


if __name__ == "__main__":
    main()
