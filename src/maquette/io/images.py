"""Pictures in and out: PNG (8 and 16 bit) and JPEG."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from maquette.core.errors import MissingFileError, UserError
from maquette.io.writing import mismatch, whole_file

Picture = Tensor | NDArray[Any]
"""(H, W) or (H, W, C) with 1, 3 or 4 channels: floats in [0, 1], or uint8 / uint16 as they are stored."""

_JPEG_SUFFIXES = {".jpg", ".jpeg"}


def write_image(path: str | Path, image: Picture, bits: int = 8, quality: int = 95) -> Path:
    """Write a picture in the format that the suffix names (``.png``, ``.jpg``, ``.jpeg``).

    Args:
        path: the file; its folder is made if it is missing.
        image: the picture; floats outside [0, 1] are clamped, what is not a number becomes 0.
        bits: 8, or 16 for a PNG with one channel.
        quality: of a JPEG, 1 to 100.

    Raises:
        UserError: the suffix or the shape is none of those above.
    """
    path = Path(path)
    stored = quantized(image, bits)
    with whole_file(path) as temporary:
        temporary.write_bytes(encode_image(stored, _format_of(path), quality))
        _check(temporary, path, stored)
    return path


def write_png(path: str | Path, image: Picture, bits: int = 8) -> Path:
    """Write a PNG whatever the suffix of `path` is, which becomes ``.png``; see `write_image`."""
    return write_image(Path(path).with_suffix(".png"), image, bits)


def write_jpg(path: str | Path, image: Picture, quality: int = 95) -> Path:
    """Write a JPEG whatever the suffix of `path` is, which becomes ``.jpg``; see `write_image`."""
    return write_image(Path(path).with_suffix(".jpg"), image, quality=quality)


def read_image(path: str | Path) -> Float[Tensor, "H W C"]:
    """A picture with values in [0, 1] and the channels it has (1, 3 or 4), upright as a camera has noted it.

    Raises:
        MissingFileError: there is no such file.
        UserError: it is not a picture.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(path, "picture")
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture_to_tensor(_upright(picture))
    except (UnidentifiedImageError, Image.DecompressionBombError) as err:
        raise UserError(f"{path} is not a picture that can be read.", hint="PNG and JPEG work") from err
    except (OSError, SyntaxError, ValueError) as err:  # Pillow's words for a file that is cut or damaged
        raise UserError(f"{path} is damaged, or ends early.", [str(err)]) from err


def _upright(picture: Image.Image) -> Image.Image:
    """A photo as the camera was held (EXIF); notes that are damaged say nothing."""
    try:
        return ImageOps.exif_transpose(picture)
    except (SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return picture


def picture_to_tensor(picture: Image.Image) -> Float[Tensor, "H W C"]:
    """A Pillow image as floats in [0, 1], palettes and one-bit masks spread out."""
    if picture.mode not in {"L", "RGB", "RGBA", "I;16", "I"}:
        picture = picture.convert("RGBA" if "transparency" in picture.info or "A" in picture.mode else "RGB")
    array = np.asarray(picture)
    scale = 255.0 if array.dtype == np.uint8 else 65535.0
    values = torch.from_numpy(array.astype(np.float32) / scale)
    return values[..., None] if values.ndim == 2 else values


def encode_image(stored: NDArray[Any], file_format: str, quality: int = 95) -> bytes:
    """The bytes of a PNG or JPEG file; the same picture always gives the same bytes.

    Args:
        stored: uint8 or uint16 values as `quantized` makes them; a JPEG drops a fourth channel.
        file_format: "PNG" or "JPEG".
        quality: of a JPEG, 1 to 100.
    """
    stream = io.BytesIO()
    if file_format == "JPEG":
        opaque = stored[..., :3] if stored.ndim == 3 else stored
        Image.fromarray(opaque).save(stream, "JPEG", quality=quality, subsampling=0)
    else:
        Image.fromarray(stored).save(stream, "PNG", compress_level=6)
    return stream.getvalue()


def quantized(image: Picture, bits: int = 8) -> NDArray[Any]:
    """The integers that a file stores: uint8 or uint16, (H, W) for one channel, else (H, W, C).

    Raises:
        UserError: not a picture's shape, or a 16-bit picture with several channels.
    """
    array = np.asarray(image.detach().cpu()) if isinstance(image, Tensor) else np.asarray(image)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if 0 in array.shape or not (array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4))):
        raise UserError(f"A picture is (H, W) or (H, W, 1, 3 or 4), not {tuple(array.shape)}.")
    if array.dtype not in (np.uint8, np.uint16):
        top, kind = (255.0, np.uint8) if bits == 8 else (65535.0, np.uint16)
        finite = np.nan_to_num(array.astype(np.float64), nan=0.0, posinf=1.0, neginf=0.0)
        array = np.rint(finite.clip(0.0, 1.0) * top).astype(kind)
    if array.dtype == np.uint16 and array.ndim == 3:
        raise UserError(
            "A 16-bit picture has one channel.", hint="write the channels to a file each, or use .npy"
        )
    return np.ascontiguousarray(array)


def _format_of(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix == ".png":
        return "PNG"
    if suffix in _JPEG_SUFFIXES:
        return "JPEG"
    raise UserError(f"Pictures are written as .png or .jpg, not {suffix or 'without a suffix'}: {path}")


def _check(temporary: Path, path: Path, stored: NDArray[Any]) -> None:
    with Image.open(temporary) as again:
        again.load()
        size = (again.height, again.width)
        if size != stored.shape[:2]:
            raise mismatch(path, "size", stored.shape[:2], size)
        if again.format == "PNG" and not np.array_equal(np.asarray(again), stored):
            raise mismatch(path, "pixels", "one picture", "another picture")
