"""New views of the object in a picture: Zero123 (Liu et al. 2023) and its descendants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from maquette.core.errors import UserError
from maquette.diffusion.families.picture import PictureDenoiser

CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Final = (0.26862954, 0.26130258, 0.27577711)
"""Of the pictures that CLIP was trained on, channel by channel."""


@dataclass(frozen=True)
class PictureCondition:
    """What Zero123 reads beside the noised latents, for N samples."""

    tokens: Float[Tensor, "N 1 D"]
    """The picture's CLIP embedding and the camera, projected together: for the cross-attention."""
    latents: Float[Tensor, "N C h w"]
    """The picture's latents without their scale, beside the noised ones."""

    def __getitem__(self, rows: slice | list[int] | Tensor) -> PictureCondition:
        return PictureCondition(self.tokens[rows], self.latents[rows])

    def zeros(self) -> PictureCondition:
        """The same shapes, all zero: the unconditional side of classifier-free guidance."""
        return PictureCondition(torch.zeros_like(self.tokens), torch.zeros_like(self.latents))

    @staticmethod
    def cat(parts: Sequence[PictureCondition]) -> PictureCondition:
        """All rows of several conditions."""
        return PictureCondition(
            torch.cat([part.tokens for part in parts]), torch.cat([part.latents for part in parts])
        )


class Zero123Denoiser(PictureDenoiser):
    """A UNet that reads a picture and where the camera went from there, and no text.

    `condition` makes both: its tokens are the `text` of `predict`, its latents the `picture`.

    Args:
        unet: reads twice the channels of the latents.
        vae: a diffusers `AutoencoderKL`.
        scheduler: gives the noise levels and what the UNet predicts.
        image_encoder: a transformers `CLIPVisionModelWithProjection`.
        projection: linear, from the picture's embedding and four numbers of the camera to the context.

    Raises:
        UserError: the model is of another family.
    """

    def __init__(self, unet: Any, vae: Any, scheduler: Any, image_encoder: Any, projection: Any) -> None:
        super().__init__(unet, vae, scheduler)
        if projection is None:
            raise UserError("The model has no projection of camera and picture (cc_projection).")
        self.image_encoder = image_encoder.eval().requires_grad_(False)
        self.projection = projection.eval().requires_grad_(False)

    def to(self, device: torch.device) -> Self:
        """Move everything to a device; returns itself."""
        self.image_encoder.to(device)
        self.projection.to(device)
        return super().to(device)

    @torch.no_grad()
    def picture(
        self, images: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B C h w"]]:
        """CLIP embeddings, and latents without their scale, of reference pictures in [0, 1] on white."""
        side = self.image_encoder.config.image_size
        mean, std = (images.new_tensor(one).view(3, 1, 1) for one in (CLIP_MEAN, CLIP_STD))
        small = F.interpolate(images, (side, side), mode="bicubic", align_corners=True)
        pixels = ((small - mean) / std).to(self.image_encoder.dtype)
        embedding = self.image_encoder(pixel_values=pixels).image_embeds.to(images.dtype)
        if images.shape[-2:] != (self.image_size, self.image_size):
            images = F.interpolate(images, (self.image_size,) * 2, mode="bilinear", antialias=True)
        return embedding, self.raw_latents(images)

    @torch.no_grad()
    def condition(
        self,
        embedding: Float[Tensor, "#B D"],
        latents: Float[Tensor, "#B C h w"],
        camera: Float[Tensor, "B 4"],
    ) -> PictureCondition:
        """The condition of B samples, from what `picture` gave and from `relative_camera`."""
        count = len(camera)
        joined = torch.cat([embedding.expand(count, -1), camera.to(embedding)], dim=-1)
        dtype = next(self.projection.parameters()).dtype
        tokens = self.projection(joined.to(dtype))[:, None].to(embedding.dtype)
        return PictureCondition(tokens, latents.expand(count, -1, -1, -1))


def relative_camera(
    elevation_deg: Float[Tensor, "B"],
    azimuth_deg: Float[Tensor, "B"],
    distance: Float[Tensor, "B"],
    *,
    from_elevation_deg: float,
    from_azimuth_deg: float,
    from_distance: float,
    stable: bool = False,
) -> Float[Tensor, "B 4"]:
    """The four numbers by which Zero123 knows a camera, seen from that of the reference picture.

    They are the difference of the polar angles (from above; radians), sine and cosine of the difference of
    azimuths, and the difference of distances; in `stable` Zero123 the last one is the polar angle of the
    reference camera instead (section 3.2 of the paper; the released weights).
    """
    polar = torch.deg2rad(from_elevation_deg - elevation_deg)
    turn = torch.deg2rad(azimuth_deg - from_azimuth_deg)
    reference = torch.deg2rad(torch.full_like(polar, 90.0 - from_elevation_deg))
    last = reference if stable else distance - from_distance
    return torch.stack([polar, turn.sin(), turn.cos(), last], dim=-1)
