"""Knowledge distillation: a network learns from the softmax of a trained one.

Source: Hinton et al. 2015, arXiv:1503.02531; with these settings Dong & Yang 2019,
arXiv:1905.09717, section 3.3.
"""

import torch.nn.functional as F
from torch import Tensor


def distillation(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(taught / T) || softmax(logits / T)), the mean over images, 0-dim.

    Both (B, classes). With T^2 its gradients are about as large at every temperature.
    """
    found = F.log_softmax(logits.float() / temperature, dim=1)
    wanted = F.log_softmax(taught.float() / temperature, dim=1)
    return temperature**2 * F.kl_div(found, wanted, reduction="batchmean", log_target=True)
