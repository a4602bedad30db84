"""Several views of one object at once, which agree with each other: MVDream (Shi et al. 2023)."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from maquette.core.errors import UserError
from maquette.diffusion.families.multiview_unet import MultiViewUNet
from maquette.diffusion.latent_denoiser import LatentDenoiser


class MultiViewDenoiser(LatentDenoiser):
    """A UNet that denoises `n_views` views of an object together, each from its own camera.

    Args:
        unet: a `MultiViewUNet`.
        vae: a diffusers `AutoencoderKL`.
        scheduler: gives the noise levels and what the UNet predicts.

    Raises:
        UserError: the UNet knows no cameras.
    """

    def __init__(self, unet: Any, vae: Any, scheduler: Any) -> None:
        super().__init__(unet, vae, scheduler)
        if not isinstance(unet, MultiViewUNet) or unet.class_embedding is None:
            raise UserError("The UNet knows no cameras: it is not a MultiViewUNet.")
        unet.share_views()
        self.n_views = unet.n_views

    def predict(  # type: ignore[override]
        self,
        x_t: Float[Tensor, "N C h w"],
        t: Int[Tensor, "N"],
        text: Float[Tensor, "N L D"],
        pooled: Float[Tensor, "N P"] | None = None,
        cameras: Float[Tensor, "N 16"] | None = None,
    ) -> Float[Tensor, "N C h w"]:
        """What the UNet itself predicts; the `n_views` views of an object stand side by side in the batch and
        share their noise level. `cameras` come from `view_cameras`; zeros stand for no camera.

        Raises:
            UserError: the batch is not one of whole objects.
        """
        if len(x_t) % self.n_views:
            raise UserError(
                f"The model sees {self.n_views} views of an object together, and the batch has {len(x_t)}.",
                hint=f"set data.n_view to {self.n_views}, and data.batch_size to a multiple of it",
            )
        labels = x_t.new_zeros(len(x_t), 16) if cameras is None else cameras
        return super().predict(x_t, t, text, pooled, class_labels=labels)
