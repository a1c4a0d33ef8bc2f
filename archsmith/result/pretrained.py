"""A network with weights from ImageNet, fine-tuned beside the found one, which is trained from
scratch.

torchvision's networks, as published: all widths, the stem, 3 channels.
"""

import hashlib
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archsmith.errors import DataError
from archsmith.result.baseline import SIZES, Baseline, Draw, Rival
from search_spaces.architecture import Architecture
from search_spaces.settings import Count, checked
from search_spaces.space import Space
from supernets.costs import parameters
from supernets.layout import channels_first
from supernets.network import final_network

UNREADABLE = (OSError, EOFError, RuntimeError, pickle.UnpicklingError)


@checked
@dataclass(frozen=True)
class Pretrained(Baseline):
    """A network with torchvision's weights.

    Args:
        download: whether torchvision downloads a missing file.
        image_size: side to which the network resizes images; `null` takes those of the run.
    """

    network: Literal["resnet18", "mobilenet_v3_small"]
    download: bool
    image_size: Count | None

    @property
    def weights(self) -> Any:
        """torchvision's entry: the file's address, and what it was trained on."""
        from torchvision.models import get_model_weights

        return get_model_weights(self.network).DEFAULT

    @property
    def file(self) -> Path:
        """Where torchvision looks for the weights: below `$TORCH_HOME`, or `~/.cache/torch`."""
        return Path(torch.hub.get_dir(), "checkpoints", self.weights.url.rpartition("/")[2])

    def check(self, space: Space) -> None:
        """Downloads the file if it may. Raises DataError if it is missing, or not these weights;
        ValueError if the images have no 1 or 3 channels, or are windows of a text."""
        if space.reads_text:
            raise ValueError(f"network: {self.network} reads images, not text; set baseline=random")
        if space.input_shape[0] not in (1, 3):
            raise ValueError(
                f"network: {self.network} takes 1 or 3 channels, found {space.input_shape[0]}; set "
                "baseline=resnet18"
            )
        if not self.file.is_file():
            self._download()
        with torch.device("meta"):
            expected = _published(self.network).state_dict()
        try:
            found = self.read()
            same = {name: x.shape for name, x in found.items()} == {
                name: x.shape for name, x in expected.items()
            }
        except UNREADABLE as error:
            raise DataError(
                f"baseline: {self.file} cannot be read ({type(error).__name__}); delete it"
            ) from error
        if not same:
            raise DataError(
                f"baseline: {self.file} has other tensors than {self.weights}; delete it"
            )

    def _download(self) -> None:
        if not self.download:
            raise DataError(
                f"baseline: no file {self.file}; set baseline.download=true, or put torchvision's "
                f"{self.weights} there ($TORCH_HOME/hub/checkpoints)"
            )
        try:
            self.weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        except UNREADABLE as error:
            raise DataError(
                f"baseline: the download of {self.file.name} failed "
                f"({' '.join(str(error).split())[:100]}), expected a connection; put the file into "
                f"{self.file.parent} by hand"
            ) from error

    def read(self) -> dict[str, Tensor]:
        """The weights of the file."""
        found: dict[str, Tensor] = torch.load(self.file, map_location="cpu", weights_only=True)
        return found

    def rivals(
        self, architecture: Architecture, final: Space, draw: Draw, *, auxiliary: bool
    ) -> Iterator[Rival]:
        self.check(final)
        _, H, W = final.input_shape
        shape = (self.image_size or H, self.image_size or W)
        with torch.device("meta"):
            net = FineTuned(self.network, final, shape)
            target = parameters(final_network(final, architecture))
            sizes = {name: size(net) for name, size in SIZES.items()}
        told = {
            "match": "full",
            "ratio": round(sizes["parameters"] / target, 4),
            "width": 1.0,
            "pretrained": str(self.weights),
            "image_size": list(shape),
            **sizes,
        }
        identity = {
            "weights": hashlib.sha256(self.file.read_bytes()).hexdigest(),
            "image_size": list(shape),
        }
        make = partial(FineTuned, self.network, final, shape, self.read())
        yield Rival(f"{self.network}_pretrained", make, told, identity)


class FineTuned(nn.Module):
    """A published network with a new last layer, with the interface of a final network.

    Grey images are repeated for the three channels. Images are normalised as those of the run,
    which also have mean 0 and deviation 1.

    Args:
        shape: (H, W) to which images are resized.
        weights: those of the published network; None keeps the random ones.

    forward: (B, C, H, W) -> logits (B, classes).
    """

    auxiliary = None

    def __init__(
        self,
        network: str,
        space: Space,
        shape: tuple[int, int],
        weights: Mapping[str, Tensor] | None = None,
    ):
        super().__init__()
        self.space, self.shape = space, shape
        self.net = _published(network)
        if weights is not None:
            self.net.load_state_dict(weights)
        *_, (name, last) = (
            (name, one) for name, one in self.net.named_modules() if isinstance(one, nn.Linear)
        )
        self.net.set_submodule(name, nn.Linear(last.in_features, space.classes))

    def forward(self, x: Tensor, mixture: None = None) -> Tensor:
        x = channels_first(x)
        if x.shape[2:] != self.shape:
            x = F.interpolate(x, self.shape, mode="bilinear", antialias=True)
        return self.net(x.expand(-1, 3, -1, -1))

    def set_drop_path(self, probability: float) -> None:
        """Does nothing: there is no drop-path."""


def _published(network: str) -> Any:
    from torchvision.models import get_model

    return get_model(network, weights=None)
