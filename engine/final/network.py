"""The final network between its phases: its size, and weights that say what they belong to."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.data.roles import Data
from engine.errors import ConfigError, configuring
from engine.final.recipe import Recipe
from engine.final.weights import load_weights, read_metadata, save_weights
from search_spaces.architecture import Architecture
from search_spaces.space import Space
from supernets.network import Network, final_network

KEY = "archsmith"  # of the metadata in a weights file


def final_space(space: Space, recipe: Recipe) -> Space:
    """The space at the recipe's size. Raises ConfigError where the space has no such stem."""
    size = recipe.size
    if "stem" in size and "stem" not in space.settings:
        raise ConfigError(
            f"retrain.stem: space {space.name} has no choice of stems, found '{recipe.stem}'; "
            "set retrain.stem=null"
        )
    if "stem" in size:
        size["stem_multiplier"] = None  # the stem's own, whatever the search used
    try:
        return space.resize(**size)
    except ValueError as error:
        raise ConfigError(f"retrain: {error}") from error


def save_final(
    net: Network, path: Path, architecture: Architecture, data: Data, recipe: Recipe
) -> None:
    """Writes the weights with all that is needed to build and use the network again."""
    about = {
        "architecture": json.loads(architecture.to_json()),
        "network": dict(sorted(net.space.settings.items())),
        "data": {
            "name": data.name,
            "classes": list(data.classes),
            "mean": [float(value) for value in data.mean],
            "std": [float(value) for value in data.std],
        },
        "recipe": asdict(recipe),
    }
    save_weights(net, path, {KEY: json.dumps(about)})


def load_final(
    path: Path, space: Space, architecture: Architecture
) -> tuple[Network, dict[str, Any]]:
    """The network of a weights file, and what the file says of itself.

    Raises:
        ConfigError: not a file of `save_final`, damaged, or of another architecture.
    """
    with configuring():
        about = _about(path)
        unknown = sorted(set(about["network"]) - set(space.settings))
        if unknown:
            raise ConfigError(
                f"{path}: space '{space.name}' has no setting '{unknown[0]}'; expected a file "
                "written by task=retrain"
            )
        if Architecture.parse(about["architecture"], str(path)) != architecture:
            raise ConfigError(
                f"{path}: weights of another architecture; give the pair of one retraining"
            )
        net = final_network(space.resize(**about["network"]), architecture)
        load_weights(net, path)
    return net, about


def _about(path: Path) -> dict[str, Any]:
    """What a weights file says of itself. Raises ConfigError unless it is all there."""
    try:
        about = json.loads(read_metadata(path).get(KEY, "{}"))
        data = about["data"]
        fits = (
            isinstance(about["network"], dict)
            and isinstance(about["architecture"], dict)
            and isinstance(data["name"], str)
            and all(isinstance(name, str) for name in data["classes"])
            and all(isinstance(x, int | float) for x in [*data["mean"], *data["std"]])
        )
    except (KeyError, TypeError, RecursionError):
        fits = False
    if not fits:
        raise ConfigError(
            f"{path}: not weights of a final network; expected a file written by task=retrain"
        )
    return about


def digest_of(path: Path) -> str:
    """sha256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
