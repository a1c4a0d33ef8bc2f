"""One image file: its header, its pixels, and the reason if it cannot be read.

Channels: 1 if every image is grey (modes 1, L, 16 bits); otherwise 3, and every image is converted
to RGB without alpha. Arrays (`.npy`, uint8, (H, W) or (H, W, C)) may have any number. 16 bits are
scaled to 8, the EXIF orientation is applied, images of another size are resized (bilinear).
"""

import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from archsmith.data.listing import formats
from archsmith.data.names import printable
from archsmith.errors import DataError

ARRAY = "npy x"
RESIZE = "bilinear"  # to the requested height and width; the aspect ratio is not kept
GREY = ("1", "L", "I", "I;16", "I;16L", "I;16B", "I;16N")


def height_width(image_size: int | Sequence[int]) -> tuple[int, int]:
    """(H, W) of `data.image_size`. Raises ValueError unless it is n or [h, w], whole and > 0."""
    pair = [image_size, image_size] if isinstance(image_size, int) else list(image_size)
    if len(pair) != 2 or any(not isinstance(n, int) or n < 1 for n in pair):
        raise ValueError(
            f"data.image_size: {image_size!r}, expected pixels as n or [height, width]"
        )
    return pair[0], pair[1]


def infer_shape(
    paths: Sequence[str], image_size: int | Sequence[int] | None, channels: int | None
) -> tuple[int, int, int]:
    """(C, H, W): as given, else the most common size in a sample, and 1 channel if all are grey.

    Only headers are read.

    Raises:
        ValueError: a setting that is not a valid number of pixels or channels.
        DataError: none of the sampled images can be read.
    """
    if channels is not None and (not isinstance(channels, int) or channels < 1):
        raise ValueError(f"data.channels: {channels!r}, expected a whole number >= 1, or null")
    if channels is None:
        channels = next((c for c, _ in map(_header, paths) if c > 1), 1)
    if image_size is not None:
        return channels, *height_width(image_size)
    headers = [_header(path) for path in paths[:: 1 + len(paths) // 512]]
    sizes = Counter(size for c, size in headers if c > 0)
    if not sizes:
        raise DataError(
            f"{printable(paths[0])}: neither this nor any other of {len(headers)} sampled images "
            "can be read, expected files that Pillow opens, or .npy; replace them"
        )
    return channels, *sizes.most_common(1)[0][0]


def _header(path: str) -> tuple[int, tuple[int, int]]:
    """Channels and (H, W) after rotation; 0 channels for a file that cannot be read."""
    found = describe(path)
    if found is None:
        return 0, (0, 0)
    mode, size = found
    if mode.startswith(ARRAY):
        return int(mode.removeprefix(ARRAY)), size
    return (1 if mode in GREY else 3), size


def describe(path: str) -> tuple[str, tuple[int, int]] | None:
    """Mode (`RGB`; `npy x3` for an array) and (H, W) after rotation; None if unreadable."""
    try:
        if path.lower().endswith(".npy"):
            shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
            return f"{ARRAY}{shape[2] if len(shape) == 3 else 1}", (shape[0], shape[1])
        with _opened(path) as image:
            turned = image.getexif().get(0x0112, 1) >= 5  # orientations 5 to 8 swap the sides
            return image.mode, (image.size if turned else image.size[::-1])
    except Exception:  # every decoder fails in its own way; `attempt` reports it
        return None


def attempt(path: str, shape: Sequence[int]) -> np.ndarray | str:
    """The image, (C, H, W) uint8, or a message with the path and why it cannot be read."""
    try:
        pixels = _array(path) if path.lower().endswith(".npy") else _decode(path, shape[0])
        return _fit(pixels, shape).transpose(2, 0, 1)
    except UnidentifiedImageError:
        return f"{printable(path)} (not an image)"
    except Exception as error:  # every decoder fails in its own way
        return f"{printable(path)} ({printable(first_line(error))})"


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _opened(path: str) -> Image.Image:
    """Reads the header; more than 90 million pixels (a decompression bomb) is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(path, formats=formats())


def _array(path: str) -> np.ndarray:
    array = np.load(path, allow_pickle=False)
    if array.dtype != np.uint8 or array.ndim not in (2, 3):
        raise ValueError(f"{array.dtype} of shape {array.shape}, expected uint8 (H, W, C)")
    return array[:, :, None] if array.ndim == 2 else array


def _decode(path: str, channels: int) -> np.ndarray:
    """(H, W, 1 or 3) uint8."""
    with _opened(path) as opened:
        image = ImageOps.exif_transpose(opened)
    if image.mode == "F":
        raise ValueError("floating-point pixels; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # a palette's transparent entry is not a colour
    array = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return array[:, :, None] if array.ndim == 2 else array


def _fit(pixels: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The image (H, W, C) resized to `shape`, bilinear. Raises ValueError if C differs."""
    C, H, W = shape
    if pixels.shape[2] != C:
        raise ValueError(f"{pixels.shape[2]} channels, expected {C}")
    if pixels.shape[:2] == (H, W):
        return pixels
    resized = [
        Image.fromarray(np.ascontiguousarray(pixels[:, :, c])).resize(
            (W, H), Image.Resampling[RESIZE.upper()]
        )
        for c in range(C)
    ]
    return np.stack([np.asarray(channel) for channel in resized], -1)
