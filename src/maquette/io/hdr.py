"""Pictures of light: the Radiance format (.hdr), red, green and blue with a shared exponent.

Ward 1991, "Real Pixels" (Graphics Gems II); the layout is that of the Radiance manual, filefmts(5).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from maquette.core.errors import MissingFileError, UserError
from maquette.io.writing import mismatch, whole_file

Bytes = NDArray[np.uint8]

_MAGIC = (b"#?RADIANCE", b"#?RGBE")
_SIZE = re.compile(rb"-Y (\d+) \+X (\d+)$")
_LARGEST = 2**15 - 1
"""Width from which lines are never compressed."""
_MOST_PIXELS = 2**28


def read_hdr(path: str | Path) -> Float[Tensor, "h w 3"]:
    """Linear radiance of a Radiance picture, rows from the top.

    Raises:
        MissingFileError: there is no such file.
        UserError: it is no such picture, it ends too early, or its rows run in another direction.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(path, "picture of light")
    data = path.read_bytes()
    height, width, start = _header(data, path)
    try:
        stored = _pixels(np.frombuffer(data, np.uint8)[start:], height, width)
    except (IndexError, ValueError) as err:
        raise UserError(f"{path} is not a whole Radiance picture: {err}.") from err
    return torch.from_numpy(_decoded(stored))


def write_hdr(path: str | Path, image: Float[Tensor, "h w 3"]) -> Path:
    """Write linear radiance, uncompressed; the 8 bits of a mantissa keep about 1 % of the brightest channel.

    Raises:
        UserError: not a picture of three channels that are all finite and not negative.
    """
    path = Path(path)
    values = image.detach().cpu().numpy().astype(np.float64)
    if values.ndim != 3 or values.shape[2] != 3 or not (np.isfinite(values).all() and (values >= 0).all()):
        raise UserError("A picture of light is (height, width, 3), finite and not negative.")
    stored = _encoded(values)
    header = f"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y {len(values)} +X {values.shape[1]}\n"
    with whole_file(path) as temporary:
        temporary.write_bytes(header.encode() + stored.tobytes())
        again = read_hdr(temporary)
        if not np.array_equal(again.numpy(), _decoded(stored)):
            raise mismatch(path, "pixels", "one picture", "another picture")
    return path


def _header(data: bytes, path: Path) -> tuple[int, int, int]:
    """Height, width, and where the pixels begin."""
    if not data.startswith(_MAGIC):
        raise UserError(f"{path} is not a Radiance picture (.hdr).", hint="convert it to .hdr (RGBE) first")
    end = data.find(b"\n\n")
    line_end = data.find(b"\n", end + 2)
    found = _SIZE.match(data[end + 2 : line_end]) if end >= 0 and line_end >= 0 else None
    if found is None:
        raise UserError(f"{path}: the size is missing, or its rows do not run from the top left (-Y +X).")
    if b"32-bit_rle_xyze" in data[:end]:
        raise UserError(f"{path} holds XYZ colours.", hint="convert it to RGB first")
    height, width = int(found[1]), int(found[2])
    if not 0 < height * width <= _MOST_PIXELS:
        raise UserError(f"{path} says that it has {height} x {width} pixels.")
    return height, width, line_end + 1


def _pixels(data: Bytes, height: int, width: int) -> Bytes:
    """Mantissas and exponents (height, width, 4)."""
    new = 8 <= width <= _LARGEST and len(data) >= 4 and data[0] == 2 and data[1] == 2 and data[2] < 128
    if not new:
        return _flat(data, height * width).reshape(height, width, 4)
    rows = np.empty((height, width, 4), np.uint8)
    at = 0
    for row in range(height):
        if at + 4 > len(data) or data[at] != 2 or data[at + 1] != 2:
            raise ValueError(f"row {row} is missing")
        at += 4
        for channel in range(4):
            at = _unpack(data, at, rows[row, :, channel])
    return rows


def _unpack(data: Bytes, at: int, out: Bytes) -> int:
    """Run lengths of one channel of one row; the place behind it."""
    filled = 0
    while filled < len(out):
        count = int(data[at])
        if count > 128:
            count -= 128
            values: Bytes = data[at + 1 : at + 2]
            at += 2
        else:
            values = data[at + 1 : at + 1 + count]
            at += 1 + count
        if count == 0 or filled + count > len(out) or len(values) not in (1, count) or len(values) == 0:
            raise ValueError("a run of pixels does not fit its row")
        out[filled : filled + count] = values
        filled += count
    return at


def _flat(data: Bytes, n: int) -> Bytes:
    """Pixels one by one; (1, 1, 1, count) repeats the one before (the format's first compression)."""
    pixels = data[: len(data) // 4 * 4].reshape(-1, 4)
    repeats = (pixels[:, :3] == 1).all(axis=1)
    if not repeats[:n].any():
        if len(pixels) < n:
            raise ValueError(f"{len(pixels)} of {n} pixels are there")
        return pixels[:n]
    counts = np.where(repeats, pixels[:, 3].astype(np.int64), 1)
    previous = np.append(False, repeats[:-1])
    if (repeats & previous).any() or repeats[0]:
        raise ValueError("a repetition has nothing to repeat")
    source = np.maximum.accumulate(np.where(repeats, 0, np.arange(len(pixels))))
    spread = np.repeat(source, counts)
    if len(spread) < n:
        raise ValueError(f"{len(spread)} of {n} pixels are there")
    whole: Bytes = pixels[spread[:n]]
    return whole


def _decoded(stored: Bytes) -> NDArray[np.float32]:
    exponent = stored[..., 3:].astype(np.int32)
    values = np.ldexp((stored[..., :3].astype(np.float64)), exponent - 136)
    return np.where(exponent > 0, values, 0.0).astype(np.float32)


def _encoded(values: NDArray[np.float64]) -> Bytes:
    brightest = values.max(axis=-1)
    _, exponent = np.frexp(brightest)
    # Rounding up to 256 does not fit a byte; the next exponent does.
    exponent = np.where(np.rint(np.ldexp(brightest, 8 - exponent)) > 255, exponent + 1, exponent)
    dark = exponent + 128 < 1
    mantissa = np.rint(np.ldexp(values, (8 - exponent)[..., None])).clip(0, 255)
    stored = np.concatenate([mantissa, np.clip(exponent + 128, 0, 255)[..., None]], axis=-1)
    return np.where(dark[..., None], 0, stored).astype(np.uint8)
