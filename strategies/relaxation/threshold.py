"""Gates that compare the norms of parts of a super-kernel with trained thresholds. Single-Path NAS.

Source: Stamoulis et al. 2019, arXiv:1904.02877, section 3, and its public code.
"""

from collections.abc import Hashable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from search_spaces.settings import Share
from strategies.contracts import Relaxation
from supernets.super_kernel import SuperKernelOp

if TYPE_CHECKING:
    from strategies.strategy import Strategy
    from supernets.network import Network

BLOCK, WIDE, RING = (3, 3), (3, 6), (5, 3)  # the smallest options that have the parts


def indicator(x: Tensor) -> Tensor:
    """1 where x > 0, else 0, with the gradient of sigmoid(x)."""
    soft = x.sigmoid()
    return (x > 0).to(x.dtype) + (soft - soft.detach())


class Threshold(Relaxation):
    """The gates (R, O) of a row's options, products of three gates of its super-kernel.

    ring = 1[|outer ring| > t_ring]; then with the gated ring, wide = 1[|second half| > t_wide] and
    block = 1[|first half| > t_block], which is 1 where a row has no skip connection. |.| is the
    Frobenius norm of depthwise kernels, as in the public code. The gate of the option 5x5 with
    expansion 3 is block * ring * (1 - wide), and so on; they sum to 1.

    A row's thresholds are three of its alphas: that of a part stands at the smallest option which
    has it (block: 3x3 and 3, wide: 3x3 and 6, ring: 5x5 and 3). The others have no meaning.

    While alphas do not move, each of the three gates of a row is 0 with probability `drop`, so that
    the parts are trained evenly. The public code also divides the others by 1 - drop; then options
    would have gates below 0, and a pass would not be that of a network that can be found.

    Args:
        drop: the probability above; 0 for no dropout of gates.

    Raises:
        ValueError: another mixed op than a super-kernel, more than one choice, an update that runs
            other weights than the network's, or a pruning: the only open option of a row may be
            pruned, and would leave no open gate.
    """

    samples = True  # two passes of the warm-up differ

    def __init__(self, drop: Share):
        super().__init__()
        self.drop = drop
        self.dropping = False
        self.rows: dict[int, SuperKernelOp] = {}

    def setup(self, net: "Network", strategy: "Strategy") -> None:
        places = list(net.places())
        if not all(isinstance(place.module, SuperKernelOp) for place in places):
            raise ValueError(
                "compares norms of a super-kernel; set strategy/mixed_op=super_kernel and "
                "space=mbconv, or another strategy/relaxation"
            )
        if len(strategy.space.choices) > 1:
            raise ValueError(
                f"has thresholds for one choice, found {', '.join(strategy.space.choices)}; set "
                "space=mbconv, or another strategy/relaxation"
            )
        if strategy.update.other_weights:
            raise ValueError(
                f"reads the weights of the network, and {type(strategy.update).__name__} runs "
                "others, too; set strategy/update=first_order or one_level"
            )
        if strategy.pruning is not None:
            raise ValueError(
                f"opens one option of a row, which {type(strategy.pruning).__name__} may prune; "
                "set strategy/pruning=none"
            )
        self.strategy = strategy
        self.rows = {p.row: p.module for p in places if isinstance(p.module, SuperKernelOp)}

    def epoch_start(self, epoch: int, epochs: float) -> None:
        self.dropping = not self.strategy.alphas_move(epoch, epochs)

    def constants(self) -> Hashable:
        return self.dropping

    def forward(self, alphas: Tensor, alive: Tensor) -> tuple[Tensor, None]:
        return self.gates(alphas, alive, drops=self.training and self.dropping), None

    def expected(self, alphas: Tensor, alive: Tensor) -> tuple[Tensor, None]:
        """The gates without dropout. Before a supernet exists, all options are equal."""
        if not self.rows:
            return alive / alive.sum(1, keepdim=True).clamp_min(1), None
        return self.gates(alphas, alive, drops=False), None

    def gates(self, alphas: Tensor, alive: Tensor, *, drops: bool) -> Tensor:
        rows = []
        for r, thresholds in enumerate(alphas):
            op = self.rows[r]
            gates = torch.ones_like(thresholds[:1]) if op.only else self.of(op, thresholds, drops)
            rows.append(F.pad(gates, (0, alphas.size(1) - gates.numel())))
        return torch.where(alive, torch.stack(rows), 0.0)

    def of(self, op: SuperKernelOp, thresholds: Tensor, drops: bool) -> Tensor:
        """The gates of one row's options, in their order (O,)."""
        at = {part: thresholds[o] for o, part in enumerate(op.parts)}
        ring = indicator(op.ring_norm() - at[RING])
        first, second = op.half_norms(ring)
        wide = indicator(second - at[WIDE])
        block = indicator(first - at[BLOCK]) if None in op.parts else torch.ones_like(wide)
        if drops:
            kept = torch.rand(3, device=ring.device) >= self.drop
            ring, wide = ring * kept[0], wide * kept[1]
            block = block * kept[2] if None in op.parts else block
        parts = {
            None: 1 - block,
            (3, 3): block * (1 - ring) * (1 - wide),
            (3, 6): block * (1 - ring) * wide,
            (5, 3): block * ring * (1 - wide),
            (5, 6): block * ring * wide,
        }
        return torch.stack([parts[part] for part in op.parts])
