"""TensorBoard with what Lightning's logger lacks: histograms made on the device, videos, and meshes."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from maquette.io.video import gif_bytes, read_video
from maquette.ops.mesh import Mesh

BINS = 64
MAX_SIDE = 384
"""Pixels of a video in the log, along its longer side: a GIF is not compressed well."""
GREY = 0.7


class TensorBoard(TensorBoardLogger):
    """Lightning's logger, and ``log_*`` for everything that is no number; nothing is done but on rank 0."""

    @rank_zero_only
    def log_picture(self, name: str, picture: Tensor, step: int | None) -> None:
        """A picture (H, W, C), uint8 or in [0, 1]."""
        self.experiment.add_image(name, picture.numpy(), step, dataformats="HWC")

    @rank_zero_only
    def log_histogram(self, name: str, values: Tensor, step: int) -> None:
        """The distribution of finite values, counted on their device and read back once.

        How many are not finite is shown as the number ``NAME/not_finite``, where there are any.
        """
        facts = histogram(values)
        if facts is None:
            return
        counts, (low, high, total, squares, number, bad) = facts[:BINS], facts[BINS:]
        if bad:
            self.experiment.add_scalar(f"{name}/not_finite", bad, step)
        if not number:
            return
        limits = [low + (high - low) * (edge + 1) / BINS for edge in range(BINS)]
        self.experiment.add_histogram_raw(
            name, low, high, int(number), total, squares, limits, counts, global_step=step
        )

    @rank_zero_only
    def log_video(self, name: str, path: Path, step: int | None, fps: int = 30) -> None:
        """A video file as moving picture, as small as ``MAX_SIDE``, at most 15 frames a second."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        frames = read_video(path)
        every, shrink = max(1, round(fps / 15)), -(-max(frames.shape[1:3]) // MAX_SIDE)
        frames = frames[::every, ::shrink, ::shrink]
        image = Summary.Image(
            height=frames.shape[1],
            width=frames.shape[2],
            colorspace=3,
            encoded_image_string=gif_bytes(frames, max(1, fps // every)),
        )
        writer = self.experiment._get_file_writer()  # reopened, where the Trainer has closed it after a phase
        writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)

    @rank_zero_only
    def log_mesh(self, name: str, mesh: Mesh, step: int | None) -> None:
        """A mesh that can be turned; without vertex colours it is grey. y is up, as in three.js."""
        x, y, z = mesh.vertices.detach().float().cpu().unbind(-1)
        vertices = torch.stack([y, z, x], dim=-1)
        colors = mesh.vertex_colors
        shown = torch.full_like(vertices, GREY) if colors is None else colors.detach().float().cpu()
        self.experiment.add_mesh(
            name,
            vertices[None],
            colors=(shown.clamp(0, 1) * 255).round().to(torch.uint8)[None],
            faces=mesh.faces.detach().cpu().int()[None],
            global_step=step,
        )


@torch.no_grad()
def histogram(values: Tensor) -> list[float] | None:
    """Counts of ``BINS`` equal bins, then low, high, sum, sum of squares, number of finite values and of
    others; None for no values.
    """
    flat = values.detach().flatten().float()
    if not flat.numel():
        return None
    finite = flat.isfinite()
    number = finite.sum()
    low = flat.where(finite, torch.inf).amin()
    high = flat.where(finite, -torch.inf).amax()
    low, high = torch.where(number > 0, low, 0.0), torch.where(number > 0, high, 0.0)
    high = torch.where(high > low, high, low + low.abs() * 1e-3 + 1e-12)
    bins = ((flat.where(finite, low) - low) * (BINS / (high - low))).long().clamp(0, BINS - 1)
    counts = torch.bincount(bins.where(finite, BINS), minlength=BINS + 1).double()
    clean = flat.where(finite, 0.0).double()
    facts = torch.stack([low.double(), high.double(), clean.sum(), clean.square().sum(), number.double()])
    return torch.cat([counts[:BINS], facts, (~finite).sum().double()[None]]).tolist()
