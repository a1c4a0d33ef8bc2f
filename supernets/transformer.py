"""Transformers whose depth, embedding width, heads and MLP ratios are chosen: all in one network.

Every tensor of a smaller network is the leading part of the same tensor of the largest one. Every
choice is gated once on each path:

- heads on their outputs, hidden features of an MLP behind its activation;
- the embedding width where the stream of tokens is read, which is always through a norm: the
  mixture of the norms of all widths is gated already. The stream itself has no gates, so that each
  norm sees its own features as they are, as in the network of its width;
- depths on the normed outputs of the blocks that may be the last.

Sources: Sukthanker et al. 2024, arXiv:2312.10440; Chen et al. 2021, arXiv:2107.00651.
"""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.transformers import DEPTH, HEADS, RATIO, WIDTH, TransformerSpace, hidden
from supernets.builder import Blueprint, Builder
from supernets.checkpointing import checkpointed
from supernets.entangled import EntangledLayerNorm, Sizes, check_mixed_op, gated, part
from supernets.layout import channels_first
from supernets.mixture import GroupMixture, Mixture
from supernets.network import Logits, Network
from supernets.plain_transformer import (
    Attention,
    BlockLayout,
    ImageLayout,
    ImageTransformer,
    Layout,
    Mlp,
    TextLayout,
    TextTransformer,
    attended,
    initialise,
    pooled,
    with_token,
)
from supernets.transformer_costs import Costs

MakeMixedOp = Callable[..., nn.Module]


class SuperAttention(Attention):
    """The first heads on the first features: x (B, T, E), sizes of the heads -> (B, T, E)."""

    def forward(self, x: Tensor, heads: Sizes) -> Tensor:  # type: ignore[override]
        E, H = x.size(-1), heads.largest
        bias = None if self.bias is None else self.bias[:, :H]
        y = attended(x, self.weight[:, :H, :, :E], bias, causal=self.causal)
        return part(self.out, gated(y, heads, 2).flatten(2), E)


class SuperMlp(Mlp):
    """The first hidden features on the first features: x (B, T, E), their sizes -> (B, T, E)."""

    def forward(self, x: Tensor, hidden: Sizes) -> Tensor:  # type: ignore[override]
        y = part(self.up, x, hidden.largest)
        y = F.gelu(y) if self.gate is None else F.silu(part(self.gate, x, hidden.largest)) * y
        return part(self.down, gated(y, hidden, -1), x.size(-1))


class SuperBlock(nn.Module):
    """inputs: (x,), x (B, T, E); sizes of width, heads, hidden features -> (B, T, E)."""

    def __init__(self, layout: Layout, block: BlockLayout, *, causal: bool):
        super().__init__()
        width, bias = layout["width"], layout["bias"]
        self.norm_a = EntangledLayerNorm(width, bias=bias)
        self.attention = SuperAttention(
            width, block["heads"], layout["head_dim"], bias=bias, causal=causal
        )
        self.norm_b = EntangledLayerNorm(width, bias=bias)
        self.mlp = SuperMlp(width, block["hidden"], bias=bias, gated=layout["gated"])

    def forward(self, inputs: tuple[Tensor], width: Sizes, heads: Sizes, hidden: Sizes) -> Tensor:
        (x,) = inputs
        x = x + self.attention(self.norm_a(x, width), heads)
        return x + self.mlp(self.norm_b(x, width), hidden)


class SuperTransformer(Network):
    """All depths, widths, heads and ratios in one network; subclasses embed inputs and read the
    mixture of exits."""

    causal: bool

    def __init__(self, space: TransformerSpace):
        super().__init__()
        self.space: TransformerSpace = space
        self.auxiliary = None
        full = layout(space, Architecture.of(space, space.unpruned))
        self.layout, width = full, full["width"]
        self.positions = nn.Parameter(torch.empty(full["tokens"], width))
        self.blocks = nn.ModuleList(
            SuperBlock(full, block, causal=self.causal) for block in full["blocks"]
        )
        self.norm = EntangledLayerNorm(width, bias=full["bias"])
        self.make_ends(full)
        initialise(self, width, len(full["blocks"]))
        self.costs = Costs(space)

    def make_ends(self, full: Any) -> None:
        """Makes what is before and behind the blocks."""
        raise NotImplementedError

    def embedded(self, x: Tensor, width: int) -> Tensor:
        """The tokens (B, T, E) of an input."""
        raise NotImplementedError

    def read(self, y: Tensor) -> Tensor:
        """The logits of normed tokens (B, T, E)."""
        raise NotImplementedError

    def logits(self, x: Tensor, mixture: Mixture | None) -> Logits:
        assert mixture is not None
        rows = {name: partial(self._sizes, name, g) for name, g in mixture.groups.items()}
        depth, width = rows[DEPTH](0), rows[WIDTH](0)
        exits = {depth.sizes[o]: depth.gates[o] for o in depth.active}
        y, mixed = self.embedded(x, width.largest), cast(Tensor, 0)
        again = self.checkpoint_cells and self.training and torch.is_grad_enabled()
        for i in range(depth.largest):
            block = partial(checkpointed, self.blocks[i]) if again else self.blocks[i]
            y = block((y,), width, rows[HEADS](i), hidden_sizes(width, rows[RATIO](i)))
            if i + 1 in exits:
                normed = self.norm(y, width)
                mixed = mixed + exits[i + 1].to(normed.dtype) * normed
        return self.read(mixed)

    def _sizes(self, name: str, group: GroupMixture, row: int) -> Sizes:
        return Sizes.of(group.row(row), self.space.sizes[name])

    def expected_macs(self, gates: Mapping[str, Tensor]) -> Tensor:
        """The exact mean of `supernets.costs.macs` over final networks whose rows are drawn
        independently; of one-hot gates, the count of that network."""
        return self.costs.macs(gates)


def hidden_sizes(width: Sizes, ratio: Sizes) -> Sizes:
    """The sizes of a hidden axis: a pair of a width and a ratio decides each."""
    pairs = product(range(len(width.sizes)), range(len(ratio.sizes)))
    sizes = tuple(hidden(width.sizes[e], ratio.sizes[r]) for e, r in pairs)
    active = tuple(e * len(ratio.sizes) + r for e in width.active for r in ratio.active)
    return Sizes(torch.outer(width.gates, ratio.gates).flatten(), sizes, active)


class SuperText(SuperTransformer):
    """Token ids (B, 1, 1, T) -> logits (B, V, T)."""

    causal = True

    def make_ends(self, full: TextLayout) -> None:
        self.embedding = nn.Embedding(full["classes"], full["width"])
        self.head = None if full["tied"] else nn.Linear(full["width"], full["classes"], bias=False)

    def embedded(self, x: Tensor, width: int) -> Tensor:
        ids = x.flatten(1).round().long()
        return (
            F.embedding(ids, self.embedding.weight[:, :width])
            + self.positions[: ids.size(1), :width]
        )

    def read(self, y: Tensor) -> Tensor:
        head = self.embedding if self.head is None else self.head
        return F.linear(y, head.weight[:, : y.size(-1)]).transpose(1, 2)


class SuperImage(SuperTransformer):
    """Images (B, C, H, W) -> logits (B, classes)."""

    causal = False

    def make_ends(self, full: ImageLayout) -> None:
        width, patch = full["width"], full["patch"]
        self.patches = nn.Conv2d(full["image_channels"], width, patch, patch)
        self.class_token = nn.Parameter(torch.empty(1, width)) if full["class_token"] else None
        self.head = nn.Linear(width, full["classes"])

    def embedded(self, x: Tensor, width: int) -> Tensor:
        conv, token = self.patches, self.class_token
        assert conv.bias is not None
        maps = F.conv2d(channels_first(x), conv.weight[:width], conv.bias[:width], conv.stride)
        cut = None if token is None else token[:, :width]
        return with_token(maps, cut) + self.positions[:, :width]

    def read(self, y: Tensor) -> Tensor:
        return part(self.head, pooled(y, self.class_token), self.space.classes)


class FinalText(Network, TextTransformer):  # type: ignore[misc]  # a pass also takes a mixture
    """A final decoder with what searching and training add."""

    def __init__(self, space: TransformerSpace, layout: TextLayout):
        TextTransformer.__init__(self, layout)
        self.space: TransformerSpace = space
        self.auxiliary = None

    def logits(self, x: Tensor, mixture: Mixture | None) -> Logits:
        return TextTransformer.forward(self, x)


class FinalImage(Network, ImageTransformer):  # type: ignore[misc]
    """A final vision transformer with what searching and training add."""

    def __init__(self, space: TransformerSpace, layout: ImageLayout):
        ImageTransformer.__init__(self, layout)
        self.space: TransformerSpace = space
        self.auxiliary = None

    def logits(self, x: Tensor, mixture: Mixture | None) -> Logits:
        return ImageTransformer.forward(self, channels_first(x))


class Transformers(Builder):
    """Builds transformers."""

    def supernet(
        self, space: TransformerSpace, mixed_op: MakeMixedOp, *, affine: bool
    ) -> SuperTransformer:
        """Norms have scale and shift, whatever `affine`."""
        check_mixed_op(mixed_op, space)
        return (SuperText if space.reads_text else SuperImage)(space)

    def final(
        self, space: TransformerSpace, architecture: Architecture, *, auxiliary: bool
    ) -> FinalText | FinalImage:
        if auxiliary:
            raise ValueError(
                f"auxiliary_weight: expected 0, as space {space.name} has no auxiliary head"
            )
        plan: Any = layout(space, architecture)
        return FinalText(space, plan) if space.reads_text else FinalImage(space, plan)

    def blueprint(self, space: TransformerSpace, architecture: Architecture) -> Blueprint:
        kind = TextTransformer if space.reads_text else ImageTransformer
        return Blueprint(kind, layout(space, architecture))


def check_input(space: TransformerSpace) -> None:
    """Raises ValueError for images where text is read, and for those that are no whole squares."""
    C, H, W = space.input_shape
    if space.reads_text:
        if (C, H) != (1, 1):
            raise ValueError(f"space {space.name} reads text, found images of {C}x{H}x{W}")
    elif H % (patch := space.settings["patch"]) or W % patch:
        raise ValueError(f"patch: {H}x{W} images cannot be cut into squares of {patch} pixels")


def layout(space: TransformerSpace, architecture: Architecture) -> Layout:
    """An architecture's network as data. Raises ValueError as `check_input`."""
    check_input(space)
    kept = {
        name: [space.sizes[name][o] for (o,) in rows]
        for name, rows in architecture.kept(space).items()
    }
    (depth,), (width,), settings = kept[DEPTH], kept[WIDTH], space.settings
    chosen = zip(kept[HEADS][:depth], kept[RATIO][:depth], strict=True)
    found: dict[str, Any] = {
        "tokens": space.tokens,
        "width": width,
        "head_dim": settings["head_dim"],
        "blocks": [{"heads": h, "hidden": hidden(width, ratio)} for h, ratio in chosen],
        "gated": settings["mlp"] == "swiglu",
        "bias": settings["bias"],
        "classes": space.classes,
    }
    if space.reads_text:
        found["tied"] = settings["tied"]
    else:
        found |= {
            "image_channels": space.input_shape[0],
            "patch": settings["patch"],
            "class_token": settings["pool"] == "class_token",
        }
    return cast(Layout, found)


def sliced(net: SuperTransformer, final: nn.Module) -> dict[str, Tensor]:
    """The weights that a final network has in a supernet: the leading part of each tensor."""
    given = net.state_dict()
    return {
        name: given[name][tuple(map(slice, value.shape))].clone()
        for name, value in final.state_dict().items()
    }
