"""One image file: its header, its pixels, and the reason if it cannot be read.

Channels: 1 if every image is grey (modes 1, L, 16 bits); otherwise 3, and every image is converted
to RGB without alpha. Arrays (`.npy`, uint8, (H, W) or (H, W, C)) may have any number.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Annotated

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from archsmith.data.names import printable
from archsmith.data.pixels import decoded_formats, fitted_image, opened_image
from archsmith.errors import DataError
from search_spaces.settings import Count, checked

ARRAY, ARRAY_SUFFIX = "npy x", ".npy"
RESIZE = "bilinear"  # to the requested height and width; the aspect ratio is not kept
GREY = ("1", "L", "I", "I;16", "I;16L", "I;16B", "I;16N")


@cache
def suffixes() -> frozenset[str]:
    """Suffixes of the files that are read."""
    known, decoded = Image.registered_extensions().items(), set(decoded_formats())
    return frozenset({ARRAY_SUFFIX, *(suffix for suffix, kind in known if kind in decoded)})


Pixels = Annotated[Count | tuple[Count, Count], "pixels as n or [height, width]"]


@checked
def height_width(image_size: Pixels) -> tuple[int, int]:
    """(H, W) of `data.image_size`. Raises ValueError unless it is n or [h, w], whole and > 0."""
    if isinstance(image_size, int):
        return image_size, image_size
    height, width = image_size
    return height, width


@checked
def infer_shape(
    paths: Sequence[str], image_size: Pixels | None, channels: Count | None
) -> tuple[int, int, int]:
    """(C, H, W): as given, else the most common size in a sample, and 1 channel if all are grey.

    Only headers are read.

    Raises:
        ValueError: a setting that is not a valid number of pixels or channels.
        DataError: none of the sampled images can be read.
    """
    if channels is None:
        channels = next((c for c in map(_channels, map(describe, paths)) if c > 1), 1)
    if image_size is not None:
        return channels, *height_width(image_size)
    headers = [describe(path) for path in paths[:: 1 + len(paths) // 512]]
    sizes = Counter(header[1] for header in headers if header is not None)
    if not sizes:
        raise DataError(
            f"{printable(paths[0])}: neither this nor any other of {len(headers)} sampled images "
            "can be read, expected files that Pillow opens, or .npy; replace them"
        )
    return channels, *sizes.most_common(1)[0][0]


def _channels(header: tuple[str, tuple[int, int]] | None) -> int:
    """0 for a file that cannot be read."""
    mode = "" if header is None else header[0]
    if mode.startswith(ARRAY):
        return int(mode.removeprefix(ARRAY))
    return (1 if mode in GREY else 3) if mode else 0


def describe(path: str) -> tuple[str, tuple[int, int]] | None:
    """Mode (`RGB`; `npy x3` for an array) and (H, W) after rotation; None if unreadable."""
    try:
        if path.lower().endswith(ARRAY_SUFFIX):
            H, W, *C = np.load(path, mmap_mode="r", allow_pickle=False).shape
            return f"{ARRAY}{C[0] if len(C) == 1 else 1}", (H, W)
        with opened_image(path) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5  # swaps the sides
            return image.mode, (image.size if turned else image.size[::-1])
    except Exception:  # every decoder fails in its own way; `attempt` reports it
        return None


def attempt(path: str, shape: Sequence[int]) -> np.ndarray | str:
    """The image, (C, H, W) uint8, or a message with the path and why it cannot be read."""
    try:
        return fitted_image(path, shape)
    except UnidentifiedImageError:
        return f"{printable(path)} (not an image)"
    except Exception as error:  # every decoder fails in its own way
        return f"{printable(path)} ({printable(first_line(error))})"


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
