"""Decodes pictures to upright RGB of 8 bits, by the rules of `efface.files.pictures`."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps


def decode(source: Path | io.BytesIO, file: Path) -> tuple[Image.Image, int]:
    """Decodes a picture, upright, in RGB of 8 bits; also returns how many pictures the file holds.

    Raises:
        ValueError: it is no readable picture, has too many pixels, or numbers of an unknown range; the message names
            the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about many, but not too many, pixels, and about unknown tags
            with Image.open(source) as image:
                frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # a photo and its preview
                image.seek(0)
                return _to_rgb(ImageOps.exif_transpose(image)), frames
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ValueError(f"{file} has more than {most / 1e6:.0f} million pixels; scale it down") from error
    except (OSError, ValueError, SyntaxError, EOFError, ArithmeticError, TypeError, KeyError, IndexError) as error:
        said = str(error) or type(error).__name__
        raise ValueError(f"{file} is no readable picture ({said}); PNG and JPEG are") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    """Converts to RGB of 8 bits, with transparent parts on white."""
    if image.mode.startswith("I") or image.mode == "F":
        return _scale(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _scale(image: Image.Image) -> Image.Image:
    """Converts a grey picture of 16 bits or of floating-point numbers to RGB."""
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())  # NaN where any number is
    top = 1.0 if image.mode == "F" else 65535.0
    if not (low >= 0 and high <= top):
        raise ValueError(f"its numbers go from {low:g} to {high:g}; they must be from 0, black, to {top:g}, white")
    if image.mode != "F" and 0 < high <= 255:
        raise ValueError(f"its numbers go to {high:g} of {top:g}, which is black; if white is 255, save it in 8 bits")
    values = values.astype(np.float64)
    return Image.fromarray(np.rint(values / top * 255).astype(np.uint8)).convert("RGB")
