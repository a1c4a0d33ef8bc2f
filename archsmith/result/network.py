"""The final network between phases: its size, and a weights file with metadata."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from archsmith.data.image_file import RESIZE
from archsmith.data.preprocessing import Preprocessing
from archsmith.data.roles import Data
from archsmith.errors import ConfigError, configuring
from archsmith.result.recipe import Recipe
from archsmith.result.weights import load_weights, read_metadata, save_weights
from search_spaces.architecture import Architecture
from search_spaces.layers import check_repeats
from search_spaces.settings import setting
from search_spaces.space import Space
from supernets.network import Network, final_network

KEY = "archsmith"  # key of the metadata in a weights file


def final_space(space: Space, recipe: Recipe) -> Space:
    """The space at the recipe's size.

    With more layers than a search whose layers have cells of their own, these are repeated.

    Raises ConfigError if it has no such stem or number of layers, other rows or options than the
    search, or nothing that may be dropped.
    """
    size = recipe.size
    _check(space, recipe)
    if "stem" in size and "stem_multiplier" in space.settings:
        size["stem_multiplier"] = None  # the stem's default, whatever the search used
    with configuring(), setting("retrain"):
        final = space.resize(**size)
        if set(final.choices) != set(space.choices):
            check_repeats(space, final)
            return final
    if _options(final) == _options(space):
        return final
    if recipe.channels is not None and _rows(final) == _rows(space):
        raise ConfigError(
            f"retrain.channels: found {recipe.channels}, but in space {space.name} it changes the "
            "options that the search chose from; set retrain.channels=null"
        )
    raise ConfigError(
        f"retrain.layers: {recipe.layers}, but every layer of space {space.name} decides for "
        f"itself, so the final network has the {space.settings['layers']} layers of the "
        "search; set retrain.layers=null"
    )


def _check(space: Space, recipe: Recipe) -> None:
    """Raises ConfigError if the space has no such stem or number of layers, nothing that may be
    dropped, or no unpruned network for a teacher."""
    size = recipe.size
    if "stem" in size and "stem" not in space.settings:
        raise ConfigError(
            f"retrain.stem: space {space.name} has no choice of stems, found '{recipe.stem}'; "
            "set retrain.stem=null"
        )
    if "layers" in size and "layers" not in space.settings:
        raise ConfigError(
            f"retrain.layers: space {space.name} has no such size, found {recipe.layers}; "
            "set retrain.layers=null"
        )
    if recipe.drop_path and space.only_way:
        raise ConfigError(
            f"retrain.drop_path: expected 0 in space {space.name}, where what would be dropped is "
            f"the only way through the network, found {recipe.drop_path}"
        )
    if recipe.teacher is not None:
        unpruned(space)


def unpruned(space: Space) -> Architecture:
    """The architecture of the space's largest network. Raises ConfigError if there is none."""
    if space.unpruned is None:
        raise ConfigError(
            f"retrain.teacher: space {space.name} has no unpruned network; set retrain.teacher=null"
        )
    return Architecture.of(space, space.unpruned)


def _options(space: Space) -> dict[str, dict[str, tuple[str, ...]]]:
    """Choice -> row -> options."""
    return {n: {row.name: row.names for row in c.rows} for n, c in space.choices.items()}


def _rows(space: Space) -> dict[str, list[str]]:
    """Choice -> rows."""
    return {name: list(rows) for name, rows in _options(space).items()}


class Trained(NamedTuple):
    """A network with the metadata of its weights file."""

    net: Network
    preprocessing: Preprocessing
    data: str  # name of the data set it was trained on


def save_final(
    net: Network, path: Path, architecture: Architecture, data: Data, recipe: Recipe
) -> None:
    """Writes the weights with all metadata needed to rebuild and use the network."""
    about = {
        "architecture": json.loads(architecture.to_json()),
        "network": dict(sorted(net.space.settings.items())),
        "data": {"name": data.name},
        "preprocessing": data.preprocessing.about(),
        "recipe": asdict(recipe),
    }
    save_weights(net, path, {KEY: json.dumps(about)})


def load_final(path: Path, space: Space, architecture: Architecture) -> Trained:
    """The network of a weights file, and its preprocessing.

    Raises:
        ConfigError: the file was not written by `save_final`, is damaged, or belongs to another
            architecture.
    """
    with configuring():
        about, preprocessing = _about(path)
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
        preprocessing.check_fits(net.space.input_shape, net.space.classes)
    return Trained(net, preprocessing, about["data"]["name"])


def _about(path: Path) -> tuple[dict[str, Any], Preprocessing]:
    """The metadata of a weights file. Raises ConfigError if it is incomplete."""
    said = read_metadata(path).get(KEY, "{}")
    try:
        about = json.loads(said)
        types = ((about["network"], dict), (about["architecture"], dict), (about["data"], dict))
        fits = all(isinstance(value, kind) for value, kind in types)
        fits = fits and isinstance(about["data"]["name"], str)
        preprocessing = Preprocessing.of(about.get("preprocessing") or _earlier(about))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        fits = False
    if not fits:
        raise ConfigError(
            f"{path}: not weights of a final network; expected a file written by task=retrain"
        )
    return about, preprocessing


def _earlier(about: dict[str, Any]) -> dict[str, Any]:
    """The preprocessing in older files, where it had no entry of its own."""
    return {**about["data"], "input_shape": about["network"]["input_shape"], "resize": RESIZE}


def digest_of(path: Path) -> str:
    """sha256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
