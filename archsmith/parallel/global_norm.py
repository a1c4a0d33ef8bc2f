"""A batch norm over the images of all processes. Ioffe & Szegedy 2015, arXiv:1502.03167."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from archsmith.parallel import portions
from archsmith.parallel.sums import shared, summed
from supernets.chains import LAYERS
from supernets.fused import NORMALISATIONS, record_statistics


class GlobalNorm(nn.BatchNorm2d):
    """A batch norm over the images of all processes: (b, C, ...) -> (b, C, ...).

    It takes over the parameters and buffers of the batch norm that it replaces.
    """

    def __init__(self, norm: _BatchNorm):
        stated = norm.affine, norm.track_running_stats, torch.device("meta")
        super().__init__(norm.num_features, norm.eps, norm.momentum, *stated)
        self._parameters, self._buffers = norm._parameters, norm._buffers
        self.training = norm.training

    def _check_input_dim(self, input: Tensor) -> None:
        pass  # accepts any number of dimensions, like the layer it replaces

    def forward(self, input: Tensor) -> Tensor:
        if not self.training and self.running_mean is not None:
            return super().forward(input)
        y, mean, variance = self.normalise(input, self.weight, self.bias)
        if self.training and self.track_running_stats:
            record_statistics([self], [mean], [variance])
        return y

    def normalise(
        self, input: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The normalised images, and the mean and unbiased variance (C,) over all processes.

        Sums over processes use float64, normalisation at least float32.
        """
        x = input.float() if input.dtype.itemsize < 4 else input
        axes = [axis for axis in range(x.dim()) if axis != 1]
        var, mean = (v.double() for v in torch.var_mean(x, axes, correction=0))  # (C,) each
        count = mean.new_full((1,), x.numel() / x.size(1))
        (sums,) = summed([torch.cat([mean * count, (var + mean**2) * count, count])])
        (sums,) = shared([sums])
        mean, square = (sums[:-1] / sums[-1]).view(2, -1)
        var = square - mean**2
        scale = (var + self.eps).rsqrt() * (1.0 if weight is None else weight)
        shift = -mean * scale + (0.0 if bias is None else bias)
        shape = [1, -1] + [1] * (x.dim() - 2)
        y = torch.addcmul(shift.to(x).view(shape), x, scale.to(x).view(shape))
        n = sums[-1].detach() / portions.current.copies
        unbiased = var.detach() * n / (n - 1).clamp_min(1.0)
        return y.to(input.dtype), mean.detach().to(x), unbiased.to(x)


# The fused form runs these layers together, too.
LAYERS[GlobalNorm] = LAYERS[nn.BatchNorm2d]
NORMALISATIONS[GlobalNorm] = GlobalNorm.normalise
