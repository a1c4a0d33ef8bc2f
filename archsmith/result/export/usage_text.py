"""How an exported `model.py` of a text network is used. Its text is copied there, below the
network."""

import argparse
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from archsmith.result.export.usage import load

# ruff: noqa: F821 (an exported file defines these names)
INPUT_SHAPE: tuple[int, int, int]
CHARACTERS: tuple[str, ...]
PARAMETERS: int
MACS: int
build: Callable[[], nn.Module]


def encode(text: str) -> Tensor:
    """The ids (1, 1, T) uint8 of a text's characters; 0 for those that the network does not
    know."""
    ids = {character: i for i, character in enumerate(CHARACTERS, start=1)}
    return torch.tensor([[[ids.get(character, 0) for character in text]]], dtype=torch.uint8)


def prepare(ids: Tensor) -> Tensor:
    """The network's input (1, 1, 1, T) for ids (1, 1, T), of T up to the context."""
    limit, context = len(CHARACTERS), INPUT_SHAPE[2]
    if ids.dim() != 3 or not 0 < ids.size(2) <= context or int(ids.max()) > limit:
        found = tuple(ids.shape)
        raise ValueError(f"expected ids (1, 1, T) of 0..{limit}, T up to {context}, found {found}")
    return ids.float()[None]


@torch.inference_mode()
def generate(
    net: nn.Module, prompt: str, length: int = 200, temperature: float = 0.8, seed: int = 0
) -> str:
    """The prompt, continued by `length` characters; temperature 0 takes the most probable ones."""
    source = torch.Generator().manual_seed(seed)
    text = prompt or "\n"
    for _ in range(length):
        logits = net(prepare(encode(text[-INPUT_SHAPE[2] :])))[0, 1:, -1]  # not the unknown one
        if temperature > 0:
            drawn = torch.multinomial((logits / temperature).softmax(0), 1, generator=source)
        else:
            drawn = logits.argmax()
        text += CHARACTERS[int(drawn)]
    return text if prompt else text[1:]


def main(arguments: list[str]) -> None:
    """Continues a text; without one, prints the size of the network."""
    parser = argparse.ArgumentParser(description="Continues a text.")
    parser.add_argument("prompt", nargs="?", help="how the text begins")
    parser.add_argument("--length", type=int, default=200, help="characters to add")
    parser.add_argument("--temperature", type=float, default=0.8, help="0: the most probable ones")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    if given.length < 0 or given.temperature < 0:
        sys.exit("expected a length and a temperature of at least 0")
    if given.prompt is None:
        context = INPUT_SHAPE[2]
        print(f"{PARAMETERS:,} parameters, {MACS:,} multiply-accumulates for {context} characters")
        return
    print(generate(load(), given.prompt, given.length, given.temperature, given.seed))
