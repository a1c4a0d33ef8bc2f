"""A mixed op for relaxations that draw one candidate an edge, as in the public code of GDAS."""

from collections.abc import Sequence

from torch import Tensor

from supernets.mixed_op import MixedOp


class OnePathOp(MixedOp):
    """y = g_i op_i(x) + sum_{k != i} g_k, i the candidate that runs; the other gates are 0.

    The sum changes no output. It gives the gates that did not run a gradient, sum(dL/dy), so that
    with gates that sum to one the logits get (<dL/dy, op_i(x)> - sum(dL/dy)) dg_i/da: the op is
    compared with the constant 1. Source: public code of Dong & Yang 2019, arXiv:1910.04465; the
    paper, section 3.2, only speaks of the gradient at i, and that is what `MixedOp` does. Where all
    candidates run it is a `MixedOp`.
    """

    def forward(self, x: Tensor, gates: Tensor, active: Sequence[int]) -> Tensor | None:
        y = super().forward(x, gates, active)
        if y is None or len(active) > 1:
            return y
        return y + (gates.sum() - gates[active[0]])
