"""Transformers in plain torch, for export, too.

Sources: Vaswani et al. 2017, arXiv:1706.03762; Dosovitskiy et al. 2021, arXiv:2010.11929; Shazeer
2020, arXiv:2002.05202, for gated MLPs. Norms stand before attention and MLP.
"""

from collections.abc import Sequence
from math import sqrt
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BlockLayout(TypedDict):
    """The heads of a block, and the hidden features of its MLP."""

    heads: int
    hidden: int


class Layout(TypedDict):
    """What networks for text and for images share."""

    tokens: int  # T, the most that are read at once
    width: int  # E, features of a token
    head_dim: int
    blocks: Sequence[BlockLayout]
    gated: bool  # SwiGLU in place of GELU
    bias: bool
    classes: int


class TextLayout(Layout):
    """A decoder. tied: the last layer is the table of embeddings."""

    tied: bool


class ImageLayout(Layout):
    """A vision transformer. patch: side of a token in pixels; class_token: else the mean of all
    tokens is classified."""

    image_channels: int
    patch: int
    class_token: bool


def attended(x: Tensor, weight: Tensor, bias: Tensor | None, *, causal: bool) -> Tensor:
    """The outputs of all heads, (B, T, H, d), of x (B, T, E), weight (3, H, d, E), bias (3, H, d).

    A causal token attends to itself and to those before it.
    """
    three, H, d, E = weight.shape
    flat = None if bias is None else bias.reshape(-1)
    y = F.linear(x, weight.reshape(-1, E), flat).unflatten(-1, (three, H, d))
    q, k, v = y.permute(2, 0, 3, 1, 4).unbind()  # (B, H, T, d)
    scores = q @ k.transpose(-2, -1) * d**-0.5
    if causal:
        T = x.size(1)
        ahead = torch.ones(T, T, dtype=torch.bool, device=x.device).triu(1)
        scores = scores.masked_fill(ahead, float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2)


class Attention(nn.Module):
    """Attention of heads with d features each: (B, T, E) -> (B, T, E)."""

    def __init__(self, width: int, heads: int, head_dim: int, *, bias: bool, causal: bool):
        super().__init__()
        self.causal = causal
        self.weight = nn.Parameter(torch.empty(3, heads, head_dim, width))  # of q, k and v
        self.bias = nn.Parameter(torch.empty(3, heads, head_dim)) if bias else None
        self.out = nn.Linear(heads * head_dim, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(attended(x, self.weight, self.bias, causal=self.causal).flatten(2))


class Mlp(nn.Module):
    """Two linear layers around a GELU, or gated: silu(gate(x)) up(x). (B, T, E) -> (B, T, E)."""

    def __init__(self, width: int, hidden: int, *, bias: bool, gated: bool):
        super().__init__()
        self.up = nn.Linear(width, hidden, bias=bias)
        self.gate = nn.Linear(width, hidden, bias=bias) if gated else None
        self.down = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x)
        return self.down(F.gelu(y) if self.gate is None else F.silu(self.gate(x)) * y)


class Block(nn.Module):
    """Attention and an MLP, each behind a norm and beside a shortcut: (B, T, E) -> (B, T, E)."""

    def __init__(self, layout: Layout, block: BlockLayout, *, causal: bool):
        super().__init__()
        width, bias = layout["width"], layout["bias"]
        self.norm_a = nn.LayerNorm(width, bias=bias)
        self.attention = Attention(
            width, block["heads"], layout["head_dim"], bias=bias, causal=causal
        )
        self.norm_b = nn.LayerNorm(width, bias=bias)
        self.mlp = Mlp(width, block["hidden"], bias=bias, gated=layout["gated"])

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm_a(x))
        return x + self.mlp(self.norm_b(x))


class TextTransformer(nn.Module):
    """Token ids (B, 1, 1, T) as floats -> logits of the next token at each place, (B, V, T)."""

    def __init__(self, layout: TextLayout):
        super().__init__()
        width, classes = layout["width"], layout["classes"]
        self.embedding = nn.Embedding(classes, width)
        self.positions = nn.Parameter(torch.empty(layout["tokens"], width))
        self.blocks = nn.Sequential(*(Block(layout, b, causal=True) for b in layout["blocks"]))
        self.norm = nn.LayerNorm(width, bias=layout["bias"])
        self.head = None if layout["tied"] else nn.Linear(width, classes, bias=False)
        initialise(self, width, len(layout["blocks"]))

    def forward(self, x: Tensor) -> Tensor:
        ids = x.flatten(1).round().long()
        y = self.embedding(ids) + self.positions[: ids.size(1)]
        head = self.embedding if self.head is None else self.head
        return F.linear(self.norm(self.blocks(y)), head.weight).transpose(1, 2)


class ImageTransformer(nn.Module):
    """Images (B, C, H, W) -> logits (B, classes)."""

    def __init__(self, layout: ImageLayout):
        super().__init__()
        width, patch = layout["width"], layout["patch"]
        self.patches = nn.Conv2d(layout["image_channels"], width, patch, patch)
        self.class_token = nn.Parameter(torch.empty(1, width)) if layout["class_token"] else None
        self.positions = nn.Parameter(torch.empty(layout["tokens"], width))
        self.blocks = nn.Sequential(*(Block(layout, b, causal=False) for b in layout["blocks"]))
        self.norm = nn.LayerNorm(width, bias=layout["bias"])
        self.head = nn.Linear(width, layout["classes"])
        initialise(self, width, len(layout["blocks"]))

    def forward(self, x: Tensor) -> Tensor:
        y = with_token(self.patches(x), self.class_token) + self.positions
        return self.head(pooled(self.norm(self.blocks(y)), self.class_token))


def with_token(maps: Tensor, token: Tensor | None) -> Tensor:
    """Maps (B, E, H, W) as tokens (B, T, E), behind the class token (1, E), if there is one."""
    tokens = maps.flatten(2).transpose(1, 2)
    if token is None:
        return tokens
    return torch.cat([token.expand(tokens.size(0), 1, -1), tokens], 1)


def pooled(x: Tensor, token: Tensor | None) -> Tensor:
    """What is classified, (B, E), of tokens (B, T, E)."""
    return x.mean(1) if token is None else x[:, 0]


def initialise(net: nn.Module, width: int, depth: int) -> None:
    """Normal weights of deviation 0.4 / sqrt(width), which is 0.02 for 384 features, as in nanoGPT;
    those before a sum over all blocks divided by sqrt(2 depth), and biases 0."""
    std = 0.4 / sqrt(width)
    for name, value in net.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(value)
        elif value.dim() > 1:
            last = name.endswith(("out.weight", "down.weight"))
            nn.init.normal_(value, std=std / sqrt(2 * depth) if last else std)
