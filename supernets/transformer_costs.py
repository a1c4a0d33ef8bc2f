"""The costs of transformers whose options are drawn by probabilities, exact and differentiable.

Rows are independent, so a product of sizes of different rows has the product of their means; the
width meets itself in no matrix but that of an MLP, of width times hidden features.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from search_spaces.transformers import DEPTH, HEADS, RATIO, WIDTH, TransformerSpace, hidden


class Costs:
    """Means over final networks of a space; gates: choice -> probabilities (R, O).

    Only the first call per device and type takes numbers to it.
    """

    def __init__(self, space: TransformerSpace):
        self.space = space
        self.tables: dict[tuple[torch.device, torch.dtype], dict[str, Tensor]] = {}

    def macs(self, gates: Mapping[str, Tensor]) -> Tensor:
        """Multiply-accumulates for one input, 0-dim, as `supernets.costs.macs` counts them."""
        space, settings, T = self.space, self.space.settings, self.space.tokens
        width, heads, pairs, reach = self._means(gates)
        d = settings["head_dim"]
        attention = heads * (4 * d * T * width + 2 * d * T * T)  # (L,)
        blocks = (reach * (attention + self._matrices * T * pairs)).sum()
        if space.reads_text:
            return blocks + T * space.classes * width
        C, H, W = space.input_shape
        return blocks + (C * H * W + space.classes) * width

    def parameters(self, gates: Mapping[str, Tensor]) -> Tensor:
        """Parameters, 0-dim, as `supernets.costs.parameters` counts them."""
        space, settings = self.space, self.space.settings
        width, heads, pairs, reach = self._means(gates)
        d, bias, m = settings["head_dim"], settings["bias"], self._matrices
        block = 4 * d * heads * width + m * pairs + (2 + 2 * bias) * width
        if bias:
            units = gates[WIDTH][0] @ self._table(gates)["hidden"]  # (O,), mean over widths
            block = block + 3 * d * heads + 2 * width
            block = block + (m - 1) * (gates[RATIO][:, : len(units)] @ units)
        ends = space.tokens + 1 + bias  # rows of `width` features: positions and the last norm
        if space.reads_text:
            ends += space.classes * (1 if settings["tied"] else 2)
            return (reach * block).sum() + ends * width
        C, patch = space.input_shape[0], settings["patch"]
        ends += C * patch * patch + 1 + (settings["pool"] == "class_token") + space.classes
        return (reach * block).sum() + ends * width + space.classes

    @property
    def _matrices(self) -> int:
        """Matrices of an MLP."""
        return 3 if self.space.settings["mlp"] == "swiglu" else 2

    def _means(self, gates: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """E[width], 0-dim; of every block (L,) E[heads], E[width hidden] and P(depth >= block)."""
        table = self._table(gates)
        pairs = gates[WIDTH][0] @ (table[WIDTH][:, None] * table["hidden"])  # (O,)
        return (
            gates[WIDTH][0] @ table[WIDTH],
            gates[HEADS] @ table[HEADS],
            gates[RATIO] @ pairs,
            table["reaches"] @ gates[DEPTH][0],
        )

    def _table(self, gates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The numbers of the space on the device and of the type of gates."""
        like = gates[WIDTH]
        key = like.device, like.dtype
        if key not in self.tables:
            sizes = self.space.sizes
            found: dict[str, list[object]] = {name: list(sizes[name]) for name in (WIDTH, HEADS)}
            found["hidden"] = [[hidden(e, r) for r in sizes[RATIO]] for e in sizes[WIDTH]]
            found["reaches"] = [
                [float(depth > block) for depth in sizes[DEPTH]]
                for block in range(sizes[DEPTH][-1])
            ]
            self.tables[key] = {name: torch.tensor(rows).to(like) for name, rows in found.items()}
        return self.tables[key]
