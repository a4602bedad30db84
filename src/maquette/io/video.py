"""Moving pictures in and out: MP4 (H.264) and GIF."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from maquette.core.errors import MissingFileError, RunFailed, UserError
from maquette.io.images import Picture, quantized
from maquette.io.writing import mismatch, whole_file

_BIT_EXACT = ["-fflags", "+bitexact", "-flags:v", "+bitexact", "-map_metadata", "-1", "-threads", "1"]


def write_video(path: str | Path, frames: Iterable[Picture], fps: int = 30, crf: int = 18) -> Path:
    """Write frames as the format that the suffix names: ``.mp4`` (H.264) or ``.gif`` (endless).

    The same frames always give the same bytes. An MP4 has even sides: an odd side gets its last line twice.

    Args:
        path: the file; its folder is made if it is missing.
        frames: pictures of one size, (H, W, 1, 3 or 4); floats in [0, 1] or uint8; alpha is dropped.
        fps: frames a second.
        crf: H.264 quality, 0 is lossless, 18 looks lossless.

    Raises:
        UserError: no frame, sizes that differ, or another suffix.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in {".mp4", ".gif"}:
        raise UserError(f"Videos are written as .mp4 or .gif, not {suffix or 'without a suffix'}: {path}")
    pictures = [_rgb(frame) for frame in frames]
    if not pictures or len({picture.shape for picture in pictures}) != 1:
        raise UserError(f"A video needs at least one frame, and all of one size: {path}")
    with whole_file(path) as temporary:
        if suffix == ".mp4":
            pictures = [_even(picture) for picture in pictures]
            _write_mp4(temporary, pictures, fps, crf)
        else:
            _write_gif(temporary, pictures, fps)
        _check(temporary, path, pictures)
    return path


def read_video(path: str | Path) -> UInt8[Tensor, "N H W 3"]:
    """All frames of a video.

    Raises:
        MissingFileError: there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(path, "video")
    return torch.from_numpy(np.stack(_frames(path)))


def gif_bytes(frames: Iterable[Picture], fps: int = 15) -> bytes:
    """Frames as an endless GIF that is kept in memory, for what stores pictures in files of its own.

    Args:
        frames: pictures of one size, as :func:`write_video` takes them.
        fps: frames a second.
    """
    pictures: list[Any] = [_rgb(frame) for frame in frames]
    encoded: Any = imageio.mimwrite("<bytes>", pictures, format="GIF", duration=1000.0 / fps, loop=0)
    return bytes(encoded)


def _frames(path: Path) -> list[NDArray[Any]]:
    reader: Any = imageio.get_reader(path)
    with reader:
        return [np.asarray(frame)[..., :3] for frame in reader]


def _write_mp4(path: Path, pictures: list[NDArray[Any]], fps: int, crf: int) -> None:
    writer: Any = imageio.get_writer(
        path,
        format="FFMPEG",
        fps=fps,
        codec="libx264",
        quality=None,
        pixelformat="yuv420p",
        macro_block_size=1,
        ffmpeg_log_level="error",
        output_params=["-crf", str(crf), *_BIT_EXACT],
    )
    try:
        for picture in pictures:
            writer.append_data(picture)
    finally:
        writer.close()


def _write_gif(path: Path, pictures: list[NDArray[Any]], fps: int) -> None:
    frames: list[Any] = list(pictures)
    imageio.mimwrite(path, frames, format="GIF", duration=1000.0 / fps, loop=0)


def _rgb(frame: Picture) -> NDArray[Any]:
    stored = quantized(frame)
    if stored.dtype != np.uint8:
        raise UserError("Frames of a video are floats or uint8.")
    return np.stack([stored] * 3, axis=-1) if stored.ndim == 2 else stored[..., :3]


def _even(picture: NDArray[Any]) -> NDArray[Any]:
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _check(temporary: Path, path: Path, pictures: list[NDArray[Any]]) -> None:
    try:
        found = [frame.shape[:2] for frame in _frames(temporary)]
    except (OSError, ValueError, RuntimeError) as err:
        raise RunFailed(f"The video could not be read back and was not saved: {path}", [str(err)]) from err
    if set(found) != {pictures[0].shape[:2]}:
        raise mismatch(path, "size", pictures[0].shape[:2], sorted(set(found)))
    if path.suffix.lower() == ".mp4" and len(found) != len(pictures):
        raise mismatch(path, "frames", len(pictures), len(found))
