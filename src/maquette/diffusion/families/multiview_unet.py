"""A UNet whose views of one object see each other (MVDream, Shi et al. 2023)."""

from __future__ import annotations

from typing import Any, Final

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor

VIEWS: Final = 4
"""Views of one object, unless the configuration has another number."""


class MultiViewUNet(UNet2DConditionModel):
    """The UNet of Stable Diffusion, of which two things differ (section 3.1 of the paper).

    Self-attention runs over the pixels of all views of an object together, once `share_views` was called;
    the views of one object stand side by side in a batch. And a camera, as 16 numbers, goes through a small
    network into the embedding of the time: diffusers' own `class_embed_type="projection"`, so that every
    weight keeps its usual name and the weights of a plain UNet can be loaded into it.
    """

    @property
    def n_views(self) -> int:
        """How many views an object has; written into the configuration by `share_views`."""
        return int(self.config.get("n_views", VIEWS))

    def share_views(self, n_views: int | None = None) -> None:
        """Let self-attention see `n_views` views together, by default as many as the configuration has."""
        self.register_to_config(n_views=self.n_views if n_views is None else n_views)
        self.set_attn_processor(
            {
                name: ViewsProcessor(self.n_views) if ".attn1." in name else one
                for name, one in self.attn_processors.items()
            }
        )

    def set_attention_slice(self, slice_size: str | int | list[int] | None) -> None:
        """Slices of cross-attention only: self-attention keeps seeing all views."""
        super().set_attention_slice(slice_size)
        self.share_views()


class ViewsProcessor(AttnProcessor2_0):
    """Self-attention over the pixels of several views: (B V) L C is read as B (V L) C."""

    def __init__(self, n_views: int) -> None:
        super().__init__()
        self.n_views = n_views

    def __call__(self, attn: Attention, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Attend within each object; the shape stays."""
        batch, length, width = hidden_states.shape
        together = hidden_states.reshape(batch // self.n_views, self.n_views * length, width)
        return super().__call__(attn, together, *args, **kwargs).reshape(batch, length, -1)


def view_cameras(c2w: Tensor) -> Tensor:
    """Cameras (N, 4, 4), camera to world, as the 16 numbers (N, 16) that the UNet reads: each on the unit
    sphere around the origin, where the object is, for the training data knew one distance only.
    """
    away = c2w[:, :3, 3:] / c2w[:, :3, 3:].norm(dim=1, keepdim=True).clamp_min(1e-8)
    rotation_and_place = torch.cat([c2w[:, :3, :3], away], dim=2)
    return torch.cat([rotation_and_place, c2w[:, 3:]], dim=1).flatten(1)
