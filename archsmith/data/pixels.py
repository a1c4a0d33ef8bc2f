"""The pixels of an image file as a network sees them: decoded, turned, in its channels and size.

An exported `model.py` holds a copy of these functions, so they need only numpy and Pillow, which
are imported where they are used: without image files, the copy needs neither.
"""

from collections.abc import Sequence
from typing import Any

# EPS would run Ghostscript; for the others Pillow reads only the header.
NOT_DECODED = {"EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF"}


def fitted_image(path: str, shape: Sequence[int]) -> Any:
    """The image of a file, (C, H, W) uint8, in the given shape (C, H, W).

    `.npy` is uint8 (H, W) or (H, W, C). What else Pillow opens is turned by its EXIF orientation,
    and has one channel, grey, or three, RGB without transparency; 16 bits are scaled to 8. Images
    of another size are resized (bilinear) without keeping the aspect ratio.

    Raises:
        OSError: the file cannot be read; PIL.UnidentifiedImageError (one of them): not an image.
        ValueError: pixels of another kind or number of channels.
    """
    pixels = array_pixels(path) if path.lower().endswith(".npy") else decoded_pixels(path, shape[0])
    return resized_pixels(pixels, shape).transpose(2, 0, 1)


def array_pixels(path: str) -> Any:
    """The pixels (H, W, C) of a file of `numpy.save`."""
    import numpy

    found = numpy.load(path, allow_pickle=False)
    if found.dtype != numpy.uint8 or found.ndim not in (2, 3):
        raise ValueError(f"{found.dtype} of shape {found.shape}, expected uint8 (H, W, C)")
    return numpy.atleast_3d(found)


def decoded_formats() -> list[str]:
    """The formats that Pillow can open here, including those of installed plugins."""
    from PIL import Image

    Image.init()
    return sorted(set(Image.OPEN) - NOT_DECODED)


def opened_image(path: str) -> Any:
    """The image, of which only the header is read. Raises ValueError for more than 90 million
    pixels (a decompression bomb)."""
    import warnings

    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return Image.open(path, formats=decoded_formats())
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise ValueError(str(error)) from None


def decoded_pixels(path: str, channels: int) -> Any:
    """The pixels (H, W, 1 or 3) of an image file."""
    import numpy
    from PIL import Image, ImageOps

    with opened_image(path) as file:
        image = ImageOps.exif_transpose(file)
    if image.mode == "F":
        raise ValueError("floating-point pixels; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        wide = numpy.asarray(image).astype(numpy.int64).clip(0, 65535)
        image = Image.fromarray(((wide * 255 + 32767) // 65535).astype(numpy.uint8))
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # a palette's transparent entry is not a colour
    return numpy.atleast_3d(numpy.asarray(image.convert("L" if channels == 1 else "RGB")))


def resized_pixels(pixels: Any, shape: Sequence[int]) -> Any:
    """The pixels (H, W, C) in the size of `shape` (C, H, W). Raises ValueError if C differs."""
    import numpy
    from PIL import Image

    C, H, W = shape
    if pixels.shape[2] != C:
        raise ValueError(f"{pixels.shape[2]} channels, expected {C}")
    if pixels.shape[:2] == (H, W):
        return pixels
    channels = [Image.fromarray(numpy.ascontiguousarray(pixels[:, :, c])) for c in range(C)]
    bilinear = Image.Resampling.BILINEAR
    return numpy.stack([numpy.asarray(channel.resize((W, H), bilinear)) for channel in channels], 2)
