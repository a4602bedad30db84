"""The parts of a Zero123 pipeline that diffusers does not have, with the names under which repositories
store them: a linear layer that joins a picture's CLIP embedding with a camera, and the pipeline itself.
"""

from __future__ import annotations

from typing import Any

from diffusers import DiffusionPipeline, ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from jaxtyping import Float
from torch import Tensor, nn


class CCProjection(ModelMixin, ConfigMixin):
    """Linear from embedding and camera to the UNet's context, as the authors' own port stores it."""

    @register_to_config
    def __init__(self, in_channel: int = 772, out_channel: int = 768) -> None:
        super().__init__()
        self.projection = nn.Linear(in_channel, out_channel)

    def forward(self, x: Float[Tensor, "*N I"]) -> Float[Tensor, "*N O"]:
        """Context tokens."""
        return self.projection(x)


class CLIPCameraProjection(ModelMixin, ConfigMixin):
    """The same layer under the names of the other port."""

    @register_to_config
    def __init__(self, embedding_dim: int = 768, additional_embeddings: int = 4) -> None:
        super().__init__()
        self.proj = nn.Linear(embedding_dim + additional_embeddings, embedding_dim)

    def forward(self, x: Float[Tensor, "*N I"]) -> Float[Tensor, "*N O"]:
        """Context tokens."""
        return self.proj(x)


class Zero123Pipeline(DiffusionPipeline):
    """Holds the parts of a Zero123 model; sampling is done with `Zero123Denoiser`."""

    _optional_components = ("cc_projection", "clip_camera_projection")

    def __init__(
        self,
        vae: Any,
        image_encoder: Any,
        unet: Any,
        scheduler: Any,
        cc_projection: Any = None,
        clip_camera_projection: Any = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            image_encoder=image_encoder,
            unet=unet,
            scheduler=scheduler,
            cc_projection=cc_projection,
            clip_camera_projection=clip_camera_projection,
        )


Zero1to3StableDiffusionPipeline = Zero123Pipeline
"""The name in the index of the authors' port."""
