"""Small networks, as a user writes them, for the space from_model: `small_networks:residual`."""

import torch
from torch import Tensor, nn


def disturbed(net: nn.Module) -> nn.Module:
    """Random weights, and norms that do something else to every channel."""
    generator = torch.Generator().manual_seed(0)
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            module.weight.data += 1.0
    return net


def unit(c_in: int, c_out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU())


class Excited(nn.Module):
    """A residual block with squeeze-and-excitation."""

    def __init__(self, channels: int):
        super().__init__()
        self.first, self.second = unit(channels, channels), nn.Conv2d(channels, channels, 3, 1, 1)
        self.squeeze, self.excite = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first(x))
        scale = self.excite(torch.relu(self.squeeze(y.mean((2, 3), keepdim=True)))).sigmoid()
        return torch.relu(x + y * scale)


class Residual(nn.Module):
    """4 groups: the stream (8), both inner convolutions (8, 8), both squeezes are 4 wide."""

    def __init__(self, num_classes: int = 3):
        super().__init__()
        self.stem = unit(1, 8)
        self.blocks = nn.Sequential(Excited(8), Excited(8))
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(
            torch.flatten(nn.functional.adaptive_avg_pool2d(self.blocks(self.stem(x)), 1), 1)
        )


def residual(num_classes: int = 3) -> nn.Module:
    return disturbed(Residual(num_classes))


class Joined(nn.Module):
    """Two branches of 4 and 6 channels, a depthwise and a grouped convolution, a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = unit(1, 4), unit(1, 6)
        self.c = unit(10, 8, kernel=1)
        self.depthwise, self.grouped = unit(8, 8, groups=8), unit(8, 12, groups=4)
        self.last, self.fc = unit(12, 4), nn.Linear(4 * 2 * 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c(torch.cat([self.a(x), self.b(x)], 1))
        x = self.last(self.grouped(self.depthwise(x)))
        x = nn.functional.adaptive_max_pool2d(x, 2)
        return self.fc(x.view(x.size(0), -1))


def joined() -> nn.Module:
    return disturbed(Joined())


class Normed(nn.Module):
    """Layer norms over channels, with a residual stream, as in ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(1, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.norm, self.wide, self.narrow = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.narrow(nn.functional.gelu(self.wide(y))).permute(0, 3, 1, 2)
        return self.fc((x + self.scale * y).mean([2, 3]))


def normed() -> nn.Module:
    return disturbed(Normed())


class Shuffled(nn.Module):
    """Channels are shuffled by a reshape, which keeps their number."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = unit(1, 8), unit(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        B, C, H, W = x.size()
        x = x.view(B, 2, C // 2, H, W).transpose(1, 2).reshape(B, C, H, W)
        return self.fc(self.b(x).mean([2, 3]))


def shuffled() -> nn.Module:
    return disturbed(Shuffled())


class Unsteady(nn.Module):
    """Its path depends on its input: torch.fx cannot trace it."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def unsteady() -> nn.Module:
    return Unsteady()
