"""Networks that a careless conversion gets wrong, for the space from_model: `users_networks:Twice`.

All are a stem of 8 channels, a middle of 8, and a classifier; each has one speciality.
"""

import numpy as np
import torch
import torch.nn.functional as F
from small_networks import disturbed, unit
from torch import Tensor, nn


class Plain(nn.Module):
    def __init__(self, num_classes: int = 3):
        super().__init__()
        self.stem, self.mid, self.fc = unit(1, 8), unit(8, 8), nn.Linear(8, num_classes)
        self.more()
        disturbed(self)

    def more(self) -> None:
        pass

    def body(self, x: Tensor) -> Tensor:
        return self.mid(self.stem(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).mean((2, 3)))


class AsNumpy(Plain):  # torch takes the names of numpy
    def more(self) -> None:
        self.wide = unit(16, 8)

    def body(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.wide(torch.cat([x, self.mid(x)], axis=1))
        return x + x.mean(axis=(2, 3), keepdims=True)


class AnyDimension(Plain):
    def body(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.mid(x - x.mean(None))


class Named(Plain):
    def body(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.mid:
            x = layer(input=x)
        return F.dropout(input=x, p=0.5, training=self.training)


class SharedNorms(Plain):  # once over channels that stay, once over others
    def more(self) -> None:
        self.norm, self.channels, self.fixed = (
            nn.BatchNorm2d(8), nn.LayerNorm(8), nn.GroupNorm(2, 8)
        )  # fmt: skip

    def body(self, x: Tensor) -> Tensor:
        x = self.norm(self.fixed(self.norm(self.stem(x))))
        x = self.channels(x.permute(0, 2, 3, 1))
        return self.channels(self.mid(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)).permute(
            0, 3, 1, 2
        )


class NormOfMaps(Plain):
    def more(self) -> None:
        self.norm = nn.LayerNorm([8, 6, 7])

    def body(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).permute(0, 2, 3, 1)
        return self.mid(F.layer_norm(x, x.shape[2:]).permute(0, 3, 1, 2))


class NormByFunction(Plain):
    def more(self) -> None:
        self.scale, self.shift = nn.Parameter(torch.ones(8)), nn.Parameter(torch.ones(8))

    def body(self, x: Tensor) -> Tensor:
        x = torch.layer_norm(self.stem(x).permute(0, 2, 3, 1), (8,), self.scale, self.shift, 0.1)
        return self.mid(x.permute(0, 3, 1, 2))


class Twice(Plain):  # one parameter scales two groups
    def more(self) -> None:
        self.scale = nn.Parameter(torch.ones(8, 1, 1))

    def body(self, x: Tensor) -> Tensor:
        return self.mid(self.stem(x) * self.scale) * self.scale


class ReadElsewhere(Plain):
    def more(self) -> None:
        self.scale = nn.Parameter(torch.ones(8, 1, 1))

    def body(self, x: Tensor) -> Tensor:
        x = self.stem(x) * self.scale
        return self.mid(x) * self.scale.sum() * self.stem[0].weight.mean()


class Counted(Plain):
    def body(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.mid(x * x.shape[1] ** -0.5)


class Attributes(Plain):
    def body(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).mT
        return self.mid(x.mT.unflatten(2, (6, 7)).data)


class Batched(Plain):  # pixels become images of the batch
    def more(self) -> None:
        self.wide, self.narrow = nn.Linear(8, 16), nn.Linear(16, 8)

    def body(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        y = self.narrow(self.wide(x.reshape(-1, 8)).relu())
        return self.mid(y.reshape(x.shape).permute(0, 3, 1, 2))


class Constants(Plain):
    def more(self) -> None:
        self.register_buffer("mean", torch.tensor([0.5]))
        self.register_buffer("pixel", torch.linspace(0, 1, 42).view(6, 7), persistent=False)
        self.register_buffer("order", torch.arange(8).flip(0))
        self.register_buffer("mask", torch.arange(7) > 3)
        self.scale, self.plain = nn.Parameter(torch.tensor(0.5)), torch.tensor(0.25)
        self.index = nn.Parameter(torch.arange(7), requires_grad=False)

    def body(self, x: Tensor) -> Tensor:
        x = (x - self.mean[None, :, None, None] + self.pixel) * self.scale * self.plain
        x = self.mid(self.stem(x[..., self.index]) * torch.tensor(2.0))[:, self.order]
        return x.masked_fill(self.mask, float("-inf")).clamp(min=-1, max=float("inf"))


class Numbers(Plain):
    def more(self) -> None:
        self.conv, self.norm = (
            nn.Conv2d(np.int64(8), np.int64(8), (np.int64(1), 1)),
            nn.BatchNorm2d(8, eps=np.float64(0.1)),
        )

    def body(self, x: Tensor) -> Tensor:
        return self.mid(self.norm(self.conv(self.stem(x)))) * np.float64(0.5)


class Optional(Plain):
    def forward(self, x: Tensor, mask: Tensor | None = None, *, features: bool = False) -> Tensor:
        x = self.body(x)
        if mask is None:
            x = x * 3
        x = x.mean((2, 3))
        return x if features else self.fc(x)


class StochasticDepth(nn.Module):
    """Of the paper: in eval mode its branch counts by its probability."""

    def forward(self, x: Tensor) -> Tensor:
        return x if self.training else x * 0.5


class Depth(Plain):
    def more(self) -> None:
        self.depth = StochasticDepth()

    def body(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return x + self.depth(self.mid(x))


class InPlace(Plain):  # results that nothing reads, and inputs that are read again
    def more(self) -> None:
        self.a, self.b, self.relu = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.ReLU(inplace=True)

    def body(self, x: Tensor) -> Tensor:
        x = self.a(self.stem(x))
        y = self.b(self.relu(x)) + x
        F.leaky_relu(y, 0.1, inplace=True)
        z = self.mid(y)
        z.sub_(0.1)
        self.relu(z)
        return z


class Hooked(Plain):
    def more(self) -> None:
        self.mid[0].register_forward_hook(lambda module, given, result: result * 2)


class TwoInputs(Plain):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return super().forward(x + y)


class Sized(Plain):
    def __init__(self, width: int, num_classes: int = 3):
        super().__init__(num_classes)


network = Plain()


def kept() -> nn.Module:
    return network
