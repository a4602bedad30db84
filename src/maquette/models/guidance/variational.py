"""What guidances share that train a model of the renderings along (VSD)."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from maquette.core.device import autocast_off
from maquette.core.errors import ConfigError, UserError
from maquette.core.loading import load_module_weights
from maquette.core.random import StepRandom
from maquette.diffusion import distillation, score
from maquette.diffusion.denoiser import LatentDenoiser, own_denoiser, weights_dtype
from maquette.diffusion.lora import LoRAFile, load_adapters
from maquette.diffusion.memory import apply_memory
from maquette.diffusion.variational import VariationalDenoiser
from maquette.models.guidance.base import KEY, GuidanceOutput
from maquette.models.guidance.latent import LatentGuidance
from maquette.models.guidance.memory_options import memory_settings
from maquette.models.guidance.stable_diffusion import prompt_of
from maquette.models.guidance.view_text import ViewCondition, ViewText
from maquette.models.prompt_processors.base import PromptUtils

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


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What the models say about B latents."""

    x_t: Float[Tensor, "B C h w"]
    gradient: Float[Tensor, "B C h w"]
    """With respect to the latents."""
    x0_hat: Float[Tensor, "B C h w"]
    """The clean latents of the guided prediction."""
    x0_phi: Float[Tensor, "B C h w"] | None
    """Those of the model of the renderings; None where there is none."""


class VariationalGuidance(LatentGuidance, nn.Module):
    """Compares the guided prediction with that of a model of the renderings, or with the noise (SDS).

    Only what trains is a parameter. Batches may hold views of several assets (particles): the adapter learns
    them all.
    """

    @dataclass(kw_only=True)
    class Config(LatentGuidance.Config):
        """The guiding model, and whether there is a loss in pixels."""

        weights: str | None = None
        """Take what trains from a checkpoint: "PATH:guidance"."""
        use_img_loss: bool = False
        """Whether there is also a loss in pixels (HiFA); costs decodings each step."""

    loss_names: ClassVar[tuple[str, str, str]]
    """The main loss, that in pixels, and that of the adapter are called `loss_` and these."""

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
            own = self._load_guiding() if denoiser is None else denoiser
            self.variational = self._make_variational(own, self.phi)
            super().configure(own)
        if self.cfg.weights is not None:
            path, _, name = self.cfg.weights.rpartition(":")
            found = load_module_weights(path, name)
            self.load_state_dict(found.state_dict)
            self.do_update_step(found.epoch, found.global_step, on_load_weights=True)

    def __call__(
        self,
        rgb: Float[Tensor, "B H W C"],
        prompt_utils: PromptUtils | None,
        elevation: Float[Tensor, "B"],
        azimuth: Float[Tensor, "B"],
        camera_distances: Float[Tensor, "B"],
        rng: StepRandom | None = None,
        rgb_as_latents: bool = False,
        guidance_eval: bool = False,
        c2w: Float[Tensor, "B 4 4"] | None = None,
        mvp_mtx: Float[Tensor, "B 4 4"] | None = None,
        **kwargs: Any,
    ) -> GuidanceOutput:
        """The losses of pictures with values in [0, 1], or of latents; B samples, angles in degrees.

        Each sample has a noise level and a noise of its own, keyed by `rng`.
        """
        rng = self.draws(rng, len(rgb))
        main, in_pixels, of_adapter = (f"loss_{name}" for name in self.loss_names)
        with autocast_off(rgb.device):
            images = self.prepare(rgb, rgb_as_latents)
            latents = images if rgb_as_latents else self.encode(images, rng)
            z = latents.detach()
            text = self.told(prompt_utils, elevation, azimuth, camera_distances)
            camera = self.camera_condition(elevation, azimuth, camera_distances, c2w, mvp_mtx)
            t, noise = self.timesteps(rng), self.noise("guidance/noise", rng, latents)
            found = self.judge(z, noise, t, text, camera)
            out = GuidanceOutput(
                grad_norm=found.gradient.norm(), timestep=t, min_step=self.min_step, max_step=self.max_step
            )
            out[main] = score.specified_gradient(latents, self.limited(found.gradient))
            if self.phi is not None:
                out[of_adapter] = self.adapter_loss(z, text, camera, rng)
            if self.cfg.use_img_loss:
                out[in_pixels] = self.image_loss(images, found, t, rgb_as_latents)
            if guidance_eval:
                out.eval = self.evaluate(z, t, noise, text)
            self.show(out, z, found, text)
        return out

    def told(
        self,
        prompt_utils: PromptUtils | None,
        elevation: Float[Tensor, "B"],
        azimuth: Float[Tensor, "B"],
        camera_distances: Float[Tensor, "B"],
    ) -> ViewCondition:
        """What the guiding model is told about the pictures: the prompt, in the words of their views."""
        return ViewText(prompt_of(prompt_utils), elevation, azimuth, self.cfg.view_dependent_prompting)

    def plain(self, text: ViewCondition) -> ViewCondition:
        """What the model of the renderings is told: the prompt without the words of the view."""
        assert isinstance(text, ViewText)
        return ViewText(text.utils, text.elevation, text.azimuth, False)

    def show(
        self, out: GuidanceOutput, latents: Float[Tensor, "B C h w"], found: Judged, text: ViewCondition
    ) -> None:
        """Add what else the answer should hold; nothing by default."""

    @torch.no_grad()
    def judge(
        self,
        latents: Float[Tensor, "B C h w"],
        noise: Float[Tensor, "B C h w"],
        t: Int[Tensor, "B"],
        text: ViewCondition,
        camera: Float[Tensor, "B K"] | None = None,
    ) -> Judged:
        """w (eps_hat - eps_phi), or w (eps_hat - eps) without a model of the renderings."""
        alpha_bar = self.alpha_bar(t)
        x_t = score.add_noise(latents, noise, alpha_bar)
        eps_hat = self.guided_noise(x_t, t, text)
        x0_hat = score.predicted_x0(x_t, eps_hat, alpha_bar)
        if self.phi is None:
            grad = distillation.sds_gradient(eps_hat, noise, self.weight(t))
            return Judged(x_t=x_t, gradient=grad, x0_hat=x0_hat, x0_phi=None)
        eps_phi = self.particle_noise(x_t, t, text, camera)
        grad = distillation.vsd_gradient(eps_hat, eps_phi, self.weight(t))
        x0_phi = score.predicted_x0(x_t, eps_phi, alpha_bar)
        return Judged(x_t=x_t, gradient=grad, x0_hat=x0_hat, x0_phi=x0_phi)

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
        eps_text = self.variational.adapted_noise(x_t, t, cond.hidden, cond.pooled, camera)
        if self.phi.scale == 1.0:
            return eps_text
        eps_uncond = self.variational.adapted_noise(x_t, t, uncond.hidden, uncond.pooled)
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
        words = self.plain(text).encoding()[:batch]
        rows = torch.arange(batch, device=latents.device).repeat_interleave(n)
        camera = self._sometimes_without(camera, rng)
        return self.variational.loss(
            latents[rows],
            noise.flatten(0, 1),
            levels.flatten().to(latents.device),
            words.hidden[rows],
            None if words.pooled is None else words.pooled[rows],
            None if camera is None else camera[rows],
        )

    def image_loss(
        self, images: Float[Tensor, "B C H W"], found: Judged, t: Int[Tensor, "B"], as_latents: bool
    ) -> Float[Tensor, ""]:
        """The distillation loss in pixels (or again in latents, where there are no pixels).

        What the picture is compared with is the guided model's; in VSD that of the model of the renderings
        takes the picture's place, which for a perfect autoencoder is the same as moving both by the noise.
        """
        with torch.no_grad():
            mine = images if found.x0_phi is None else self._decoded(found.x0_phi, as_latents)
            theirs = self._decoded(found.x0_hat, as_latents)
            grad = distillation.image_gradient(mine, theirs, self.weight(t), self.alpha_bar(t))
        return score.specified_gradient(images, self.limited(grad))

    def camera_condition(
        self,
        elevation: Float[Tensor, "B"],
        azimuth: Float[Tensor, "B"],
        camera_distances: Float[Tensor, "B"],
        c2w: Float[Tensor, "B 4 4"] | None,
        mvp_mtx: Float[Tensor, "B 4 4"] | None,
    ) -> Float[Tensor, "B K"] | None:
        """What the model of the renderings is told about the cameras: a matrix row by row, or spherical
        (elevation in radians, sine and cosine of the azimuth, distance).

        Raises:
            UserError: the batch has no such matrices.
        """
        kind = "none" if self.phi is None else self.phi.camera
        if kind == "none":
            return None
        if kind == "spherical":
            around = azimuth.deg2rad()
            parts = (elevation.deg2rad(), around.sin(), around.cos(), camera_distances)
            return torch.stack(parts, dim=1).to(self.device)
        matrix = c2w if kind == "extrinsics" else mvp_mtx
        if matrix is None:
            name = "c2w" if kind == "extrinsics" else "mvp_mtx"
            raise UserError(f"A camera condition of type {kind!r} needs the matrices of the views ({name}).")
        return matrix.flatten(1).to(self.device)

    def _decoded(self, latents: Tensor, as_latents: bool) -> Tensor:
        return latents if as_latents else self.denoiser.decode(latents)

    def _sometimes_without(self, camera: Tensor | None, rng: StepRandom) -> Tensor | None:
        if camera is None or not self.phi.forget_camera:
            return camera
        kept = rng.uniform("guidance/lora_camera").to(camera) >= FORGET_CAMERA
        return camera * kept[:, None]

    def _denoise(self, x_t: Tensor, t: Tensor, text: Any) -> Tensor:
        if not self._shared:
            return super()._denoise(x_t, t, text)
        return self.variational.pretrained_noise(x_t, t, text.hidden, text.pooled)

    def _make_variational(self, own: LatentDenoiser, phi: Phi) -> VariationalDenoiser:
        self._shared = phi.model in (None, self.cfg.pretrained_model_name_or_path)
        adapted = own if self._shared else self._load_own(str(phi.model))
        if (
            adapted.latent_channels != own.latent_channels
        ):  # their sizes may differ: the UNet is convolutional
            expected = f"a model whose latents have {own.latent_channels} channels"
            raise ConfigError(f"{KEY}.{phi.model_key}", phi.model, expected)
        return VariationalDenoiser(adapted, phi.rank, CAMERAS[phi.camera])

    def _load_guiding(self) -> LatentDenoiser:
        """The model that guides; adapters of the recipe become part of it, beneath the one that trains."""
        name: str = self.cfg.pretrained_model_name_or_path
        adapters = LoRAFile.parse(self.cfg.lora, f"{KEY}.lora")
        if not adapters:
            return self._load_own(name)
        denoiser = own_denoiser(
            name, weights_dtype(self.device, self.cfg.half_precision_weights), self.device
        )
        load_adapters(denoiser.unet, adapters, fuse=True)
        apply_memory(denoiser, memory_settings(self.cfg), self.device)
        return denoiser

    def _load_own(self, name: str) -> LatentDenoiser:
        dtype = weights_dtype(self.device, self.cfg.half_precision_weights)
        return own_denoiser(name, dtype, self.device, memory=memory_settings(self.cfg))


def check_training(cfg: Any, *counts: str) -> None:
    """Refuse what cannot be while an adapter trains, and `counts` that are no numbers above zero."""
    if memory_settings(cfg).offload != "none":
        raise ConfigError(f"{KEY}.memory", "offload", "none or slicing: the adapter trains all the time")
    for name in counts:
        if getattr(cfg, name) < 1:
            raise ConfigError(f"{KEY}.{name}", getattr(cfg, name), "an integer above 0")
