"""What guidances share that train a model of the renderings along (VSD)."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from maquette.core.errors import ConfigError, UserError
from maquette.core.loading import load_module_weights
from maquette.core.random import StepRandom
from maquette.diffusion import distillation, score
from maquette.diffusion.denoiser import weights_dtype
from maquette.diffusion.latent_denoiser import LatentDenoiser
from maquette.diffusion.variational import VariationalDenoiser
from maquette.models.guidance.base import KEY, GuidanceOutput
from maquette.models.guidance.memory_options import memory_settings
from maquette.models.guidance.rules import SDS, Distilled, Sample
from maquette.models.guidance.score_distillation import ScoreDistillation
from maquette.models.guidance.view_text import ViewCondition, ViewText
from maquette.models.guidance.views import Views

CAMERAS: Final = {"extrinsics": 16, "mvp": 16, "spherical": 4, "none": 0}
"""What the model of the renderings may be told, and how many numbers that is."""

FORGET_CAMERA: Final = 0.1
"""How often the camera is withheld in training, where `Phi.forget_camera` asks for it."""


@dataclass(frozen=True, kw_only=True)
class Phi:
    """The model of the renderings: the guiding one, or another, with an adapter that trains."""

    model: str | None
    """Its name; None for the guiding model itself."""
    model_key: str
    """The option that names it."""
    rank: int
    """Of the adapter."""
    scale: float
    """Its guidance scale."""
    camera: str
    """One of `CAMERAS`."""
    levels: int
    """Noise levels on which it trains, a picture and step."""
    forget_camera: bool
    """Whether it sometimes trains without its camera."""


class VariationalGuidance(ScoreDistillation, nn.Module):
    """Compares the guided prediction with that of a model of the renderings, or with the noise (SDS).

    Only what trains is a parameter. Batches may hold views of several assets (particles): the adapter learns
    them all.
    """

    @dataclass(kw_only=True)
    class Config(ScoreDistillation.Config):
        """The guiding model, and where the training of the other one starts."""

        weights: str | None = None
        """Take what trains from a checkpoint: "PATH:guidance"."""

    adapter_loss_name: ClassVar[str]
    """The loss of the adapter is called `loss_` and this."""

    variational: VariationalDenoiser
    """Where there is a model of the renderings."""
    phi: Phi | None
    """How it is used; None for SDS."""

    @abstractmethod
    def parse_phi(self) -> Phi | None:
        """The model of the renderings as the config has it."""

    def configure(self, denoiser: Any = None) -> None:
        """Load the models, unless a `denoiser` is given to guide, and put a fresh adapter on one of them."""
        self.phi, self._shared = self.parse_phi(), False
        if self.phi is None:
            super().configure(denoiser)
        else:
            own = self._load(own=True) if denoiser is None else denoiser
            self.variational = self._make_variational(own, self.phi)
            super().configure(own)
        if self.cfg.weights is not None:
            path, _, name = self.cfg.weights.rpartition(":")
            found = load_module_weights(path, name)
            self.load_state_dict(found.state_dict)
            self.do_update_step(found.epoch, found.global_step, on_load_weights=True)

    def sample(
        self, rgb: Float[Tensor, "B H W _"], views: Views, rng: StepRandom, as_latents: bool
    ) -> tuple[Float[Tensor, "B _ _ _"], Float[Tensor, "B C h w"], Sample]:
        """As in every guidance, and the sample has the camera condition."""
        images, latents, sample = super().sample(rgb, views, rng, as_latents)
        return images, latents, replace(sample, camera=self.camera_condition(views))

    @torch.no_grad()
    def distill(self, sample: Sample) -> Distilled:
        """w (eps_hat - eps_phi), or w (eps_hat - eps) without a model of the renderings."""
        if self.phi is None:
            return SDS()(self, sample)
        t, alpha_bar = sample.t, self.alpha_bar(sample.t)
        x_t = score.add_noise(sample.latents, sample.noise, alpha_bar)
        eps_hat = self.guided_noise(x_t, t, sample.text)
        eps_phi = self.particle_noise(x_t, t, sample.text, sample.camera)
        return Distilled(
            gradient=distillation.vsd_gradient(eps_hat, eps_phi, self.weight(t)),
            x0_hat=score.predicted_x0(x_t, eps_hat, alpha_bar),
            x0_phi=score.predicted_x0(x_t, eps_phi, alpha_bar),
        )

    def complete(self, out: GuidanceOutput, sample: Sample, found: Distilled, rng: StepRandom) -> None:
        """Add the loss of the adapter."""
        if self.phi is not None:
            loss = self.adapter_loss(sample.latents, sample.text, sample.camera, rng)
            out[f"loss_{self.adapter_loss_name}"] = loss

    def plain(self, text: ViewCondition) -> ViewCondition:
        """What the model of the renderings reads: the prompt without the words of the view."""
        assert isinstance(text, ViewText)
        return ViewText(text.utils, text.elevation, text.azimuth, False)

    def particle_noise(
        self,
        x_t: Float[Tensor, "B C h w"],
        t: Int[Tensor, "B"],
        text: ViewCondition,
        camera: Float[Tensor, "B K"] | None,
    ) -> Float[Tensor, "B C h w"]:
        """The adapted model's prediction: it reads the plain prompt, and the camera instead of view words."""
        words = self.plain(text).encoding()
        cond, uncond = words[: len(x_t)], words[len(x_t) :]
        ask = self.variational.adapted_noise
        eps_text = ask(x_t, t, cond.hidden, cond.pooled, camera, **self._beside(cond))
        if self.phi.scale == 1.0:
            return eps_text
        eps_uncond = ask(x_t, t, uncond.hidden, uncond.pooled, **self._beside(uncond))
        return score.classifier_free(eps_uncond, eps_text, self.phi.scale)

    def adapter_loss(
        self,
        latents: Float[Tensor, "B C h w"],
        text: ViewCondition,
        camera: Float[Tensor, "B K"] | None,
        rng: StepRandom,
    ) -> Float[Tensor, ""]:
        """The adapter's denoising loss on the pictures of this step, at levels of its own."""
        n, batch = self.phi.levels, len(latents)
        levels = rng.integers("guidance/lora_timestep", 0, self.num_train_timesteps - 1, n)
        noise = rng.normal("guidance/lora_noise", n, *latents.shape[1:]).to(latents)
        rows = torch.arange(batch, device=latents.device).repeat_interleave(n)
        words = self.plain(text).encoding()[rows]
        camera = self._sometimes_without(camera, rng)
        return self.variational.loss(
            latents[rows],
            noise.flatten(0, 1),
            levels.flatten().to(latents.device),
            words.hidden,
            words.pooled,
            None if camera is None else camera[rows],
            **self._beside(words),
        )

    def camera_condition(self, views: Views) -> Float[Tensor, "B K"] | None:
        """What the model of the renderings reads about the cameras: a matrix row by row, or spherical
        (elevation in radians, sine and cosine of the azimuth, distance).

        Raises:
            UserError: the batch has no such matrices.
        """
        kind = "none" if self.phi is None else self.phi.camera
        if kind == "none":
            return None
        if kind == "spherical":
            around = views.azimuth.deg2rad()
            parts = (views.elevation.deg2rad(), around.sin(), around.cos(), views.camera_distances)
            return torch.stack(parts, dim=1).to(self.device)
        matrix = views.c2w if kind == "extrinsics" else views.mvp_mtx
        if matrix is None:
            name = "c2w" if kind == "extrinsics" else "mvp_mtx"
            raise UserError(f"A camera condition of type {kind!r} needs the matrices of the views ({name}).")
        return matrix.flatten(1).to(self.device)

    def _sometimes_without(self, camera: Tensor | None, rng: StepRandom) -> Tensor | None:
        if camera is None or not self.phi.forget_camera:
            return camera
        kept = rng.uniform("guidance/lora_camera").to(camera) >= FORGET_CAMERA
        return camera * kept[:, None]

    def _denoise(self, x_t: Tensor, t: Tensor, text: Any) -> Tensor:
        if not self._shared:
            return super()._denoise(x_t, t, text)
        return self.variational.pretrained_noise(x_t, t, text.hidden, text.pooled, **self._beside(text))

    def _make_variational(self, own: LatentDenoiser, phi: Phi) -> VariationalDenoiser:
        self._shared = phi.model in (None, self.cfg.pretrained_model_name_or_path)
        adapted = own if self._shared else self._load_own(str(phi.model))
        # Their sizes may differ: the UNet is convolutional.
        if adapted.latent_channels != own.latent_channels:
            expected = f"a model whose latents have {own.latent_channels} channels"
            raise ConfigError(f"{KEY}.{phi.model_key}", phi.model, expected)
        return VariationalDenoiser(adapted, phi.rank, CAMERAS[phi.camera])

    def _load_own(self, name: str) -> LatentDenoiser:
        dtype = weights_dtype(self.device, self.cfg.half_precision_weights)
        return self._open(name, dtype, own=True, memory=memory_settings(self.cfg))


def check_training(cfg: Any, *counts: str) -> None:
    """Refuse what cannot be while an adapter trains, and `counts` that are no numbers above zero."""
    if memory_settings(cfg).offload != "none":
        switches = "without enable_model_cpu_offload or enable_sequential_cpu_offload"
        wanted = f"none or slicing, {switches}: the adapter trains all the time"
        raise ConfigError(f"{KEY}.memory", "offload", wanted)
    for name in counts:
        if getattr(cfg, name) < 1:
            raise ConfigError(f"{KEY}.{name}", getattr(cfg, name), "an integer above 0")
