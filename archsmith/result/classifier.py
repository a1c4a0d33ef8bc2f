"""A trained network together with its preprocessing: raw images in, logits out."""

import torch
from torch import Tensor, nn

from archsmith.data.preprocessing import Preprocessing


class Classifier(nn.Module):
    """A network for raw images; `classes` are the class names in the order of the logits.

    forward: (B, C, H, W), uint8 from 0 to 255 or float from 0 to 1 -> logits (B, classes). Raises
    ValueError for images of another shape, type or range.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, preprocessing: Preprocessing):
        super().__init__()
        self.net, self.preprocessing = net, preprocessing
        self.classes = preprocessing.classes
        normalise = preprocessing.normalise
        self.register_buffer("mean", normalise.mean[:, None, None])
        self.register_buffer("std", normalise.std[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        self.preprocessing.check(images)
        x = images.to(torch.float32)
        if images.dtype == torch.uint8:
            x = x / 255
        return self.net((x - self.mean) / self.std)
