"""The model of the renderings themselves, trained along by variational score distillation."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.embeddings import TimestepEmbedding
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from maquette.core.errors import UserError
from maquette.core.random import named_generator
from maquette.diffusion.contexts import replaced
from maquette.diffusion.denoiser import LatentDenoiser
from maquette.diffusion.lora import RANK, adapter_parameters, add_adapter, without_adapters
from maquette.diffusion.score import add_noise

ADAPTER = "vsd"
CAMERA_DIMS = 16
"""Numbers of a flattened 4 x 4 camera matrix."""


class VariationalDenoiser(nn.Module):
    """A pretrained denoiser and, by an adapter and the camera, one of the renderings (ProlificDreamer).

    Only what trains is a submodule, so that optimizers, checkpoints and device moves see nothing else: the
    adapter's matrices and the embedding of the camera.

    Args:
        denoiser: its UNet gets the adapter; nobody else may use it.
        rank: of the adapter.
        camera_dims: numbers that tell the adapted model the camera, through the UNet's class embedding; 0 for
            none.

    Raises:
        UserError: the UNet has a class embedding of its own, and a camera is wanted.
    """

    def __init__(self, denoiser: LatentDenoiser, rank: int = RANK, camera_dims: int = CAMERA_DIMS) -> None:
        super().__init__()
        unet: Any = denoiser.unet
        add_adapter(unet, ADAPTER, rank=rank)
        if camera_dims and unet.class_embedding is not None:
            raise UserError("The model has class labels of its own, and no room for a camera condition.")
        self.__dict__["denoiser"] = denoiser
        width = unet.time_embedding.linear_2.out_features
        self.camera_dims = camera_dims
        self.camera_embedding = TimestepEmbedding(camera_dims, width).to(unet.device) if camera_dims else None
        found = adapter_parameters(unet, ADAPTER)
        for weight in found.values():  # half precision is too coarse for the steps of an optimizer
            weight.data = weight.data.float()
        self.lora_layers = nn.ParameterDict({name.replace(".", "-"): one for name, one in found.items()})
        self.init_from(named_generator(None, "variational"))

    denoiser: LatentDenoiser

    @torch.no_grad()
    def init_from(self, generator: torch.Generator) -> None:
        """Draw all weights; the adapter changes nothing yet, and neither does the camera."""
        for name, weight in self.lora_layers.items():
            if "-lora_A-" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) / weight.shape[0])
            else:
                weight.zero_()
        if self.camera_embedding is not None:
            first, last = self.camera_embedding.linear_1, self.camera_embedding.linear_2
            first.weight.copy_(torch.randn(first.weight.shape, generator=generator) / self.camera_dims**0.5)
            for one in (first.bias, last.weight, last.bias):
                one.zero_()

    @torch.no_grad()
    def pretrained_noise(
        self,
        x_t: Float[Tensor, "N C h w"],
        t: Int[Tensor, "N"],
        text: Tensor,
        pooled: Tensor | None = None,
        **condition: Tensor,
    ) -> Float[Tensor, "N C h w"]:
        """The noise as the pretrained model sees it; arguments are those of its `predict_noise`."""
        with without_adapters(self.denoiser.unet):
            return self.denoiser.predict_noise(x_t, t, text, pooled, **condition)

    @torch.no_grad()
    def adapted_noise(
        self,
        x_t: Float[Tensor, "N C h w"],
        t: Int[Tensor, "N"],
        text: Tensor,
        pooled: Tensor | None = None,
        camera: Float[Tensor, "N K"] | None = None,
        **condition: Tensor,
    ) -> Float[Tensor, "N C h w"]:
        """The noise as the model of the renderings sees it."""
        return self.denoiser.noise_in(self._adapted(x_t, t, text, pooled, camera, condition), x_t, t)

    def loss(
        self,
        x0: Float[Tensor, "N C h w"],
        eps: Float[Tensor, "N C h w"],
        t: Int[Tensor, "N"],
        text: Tensor,
        pooled: Tensor | None = None,
        camera: Float[Tensor, "N K"] | None = None,
        **condition: Tensor,
    ) -> Float[Tensor, ""]:
        """The denoising loss on renderings (ProlificDreamer, eq. 8), in what the UNet predicts."""
        x_t = add_noise(x0, eps, self.denoiser.alphas_cumprod[t])
        out = self._adapted(x_t, t, text, pooled, camera, condition)
        return F.mse_loss(out.float(), self.denoiser.target(x0, eps, t).float())

    def _adapted(
        self,
        x_t: Tensor,
        t: Tensor,
        text: Tensor,
        pooled: Tensor | None,
        camera: Tensor | None,
        condition: dict[str, Tensor],
    ) -> Tensor:
        if self.camera_embedding is None:
            return self.denoiser.predict(x_t, t, text, pooled, **condition)
        if camera is None:
            camera = x_t.new_zeros(len(x_t), self.camera_dims)
        with replaced(self.denoiser.unet, "class_embedding", self.camera_embedding):
            return self.denoiser.predict(x_t, t, text, pooled, class_labels=camera, **condition)
