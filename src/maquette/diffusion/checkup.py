"""Whether a model is wired up right: short experiments, each with an answer that a broken model fails.

They need a model that denoises by a text alone, and know nothing of what it was trained on, except a prompt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from maquette.core.device import peak_memory, synchronize
from maquette.core.errors import MaquetteError, UserError
from maquette.core.random import named_generator
from maquette.diffusion import score
from maquette.diffusion.denoiser import shared_denoiser
from maquette.diffusion.load import family
from maquette.diffusion.noise_levels import PREDICTIONS, implied_noise
from maquette.diffusion.noise_predictor import NoisePredictor
from maquette.diffusion.text import TextEncoding, empty_is_zero, encode_prompts

PROMPT: Final = "a photo of the red mushroom, front view"
"""What is sampled, unless another prompt is given; the embedded prior knows every word."""

OTHER_PROMPT: Final = "a photo of the blue boat, back view"
"""What the sampled picture does not show."""

SAMPLING_STEPS: Final = 20
SDS_STEPS: Final = 10
GUIDANCE_SCALE: Final = 5.0
SDS_SCALE: Final = 2.0
SDS_LEVEL: Final = 0.3

SPOILT: Final = 1.0
"""Noise in the latents from which score distillation starts."""

SDS_DROP: Final = 0.8
"""What must be left, at most, of the distance to the picture."""

LATENT_SPREAD: Final = (0.4, 2.0)
"""Standard deviation that latents of pictures may have; models are trained at about 1."""

LEVELS: Final = (0.2, 0.4, 0.6)
"""Noise levels at which predictions are compared, as parts of all."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one experiment."""

    name: str
    """What was looked at."""
    passed: bool
    """Whether it is as it should be."""
    detail: str
    """What was measured."""
    seconds: float
    """How long it took."""
    memory: float
    """Highest memory use of the process so far, GiB."""


class Checkup:
    """The experiments on one model, in order; each may use what an earlier one left.

    Args:
        model: as for `load_pipeline`.
        dtype: of the weights.
        device: where the model runs.
        prompt: something that the model can draw.
        other: something else that it can draw.

    Raises:
        UserError: the model needs more than a text.
    """

    def __init__(
        self,
        model: str,
        dtype: torch.dtype,
        device: torch.device,
        prompt: str = PROMPT,
        other: str = OTHER_PROMPT,
    ) -> None:
        kind = family(model)
        if not kind.text_only:
            raise UserError(f"Only models that need nothing but a text are examined; this is {kind.what}.")
        self.model, self.dtype, self.device = model, dtype, device
        self.prompts = [prompt, "", other]
        self.kind = kind
        self.rng = named_generator(0, "checkup")

    denoiser: NoisePredictor
    text: TextEncoding
    latents: Tensor
    """Of the sampled picture, (1, C, h, w)."""

    def findings(self) -> Iterator[Finding]:
        """What each experiment found, as soon as it has; those after a crash are not made."""
        for name, experiment in (
            ("loading", self.loading),
            ("text", self.encoding),
            ("sampling", self.sampling),
            ("latent scale", self.latent_scale),
            ("prediction type", self.prediction_type),
            ("guidance direction", self.guidance_direction),
            ("score distillation", self.distillation),
        ):
            finding = self._timed(name, experiment)
            yield finding
            if finding.detail.startswith(_CRASH):
                return

    def loading(self) -> tuple[bool, str]:
        """Every weight is there, and the sizes fit."""
        self.denoiser = shared_denoiser(self.model, self.dtype, self.device)
        one = self.denoiser
        return True, (
            f"{self.kind.what}; {one.image_size} x {one.image_size} pixels, latents {one.latent_channels} x "
            f"{one.latent_size} x {one.latent_size}, {one.num_train_timesteps} levels, "
            f"predicts {getattr(one, 'prediction_type', 'unknown')}"
        )

    def encoding(self) -> tuple[bool, str]:
        """Two prompts have different embeddings, all finite."""
        text = encode_prompts(self.model, self.prompts, dtype=self.dtype, device=self.device, use_cache=False)
        if empty_is_zero(self.model):
            text = TextEncoding.cat([text[:1], text[1:2].zeros(), text[2:]])
        self.text = text.to(self.device)
        apart = (text.hidden[0].float() - text.hidden[2].float()).norm() / text.hidden[0].float().norm()
        good = bool(torch.isfinite(text.hidden).all()) and apart.item() > 1e-3
        return (
            good,
            f"{text.hidden.shape[1]} tokens of {text.hidden.shape[2]}; two prompts differ by {apart:.0%}",
        )

    @torch.no_grad()
    def sampling(self) -> tuple[bool, str]:
        """Noise becomes a picture that is finite, not flat and not all black and white."""
        count = self.denoiser.num_train_timesteps
        levels = [round((count - 1) * i / SAMPLING_STEPS) for i in range(SAMPLING_STEPS, -1, -1)]
        x = self._noise()
        for level, following in pairwise(levels):
            eps, alpha_bar = self._guided(x, self._at(level)), self.denoiser.alphas_cumprod[[level]]
            x = score.ddim_step(x, eps, alpha_bar, self.denoiser.alphas_cumprod[[following]])
        self.latents = x
        picture = self.denoiser.decode(x)
        spread, outside = picture.std().item(), (picture != picture.clamp(-0.1, 1.1)).float().mean().item()
        good = bool(torch.isfinite(picture).all()) and spread > 0.02 and outside < 0.2
        return good, f"standard deviation {spread:.2f}, {outside:.0%} out of range, latents {x.std():.2f}"

    @torch.no_grad()
    def latent_scale(self) -> tuple[bool, str]:
        """Latents of pictures have a spread of about one, and decode to the pictures."""
        pictures = natural_pictures(4, self.denoiser.image_size, self.rng).to(self.device)
        latents = self.denoiser.encode(pictures)
        error = (self.denoiser.decode(latents) - pictures).square().mean().sqrt().item()
        spread = latents.std().item()
        good = LATENT_SPREAD[0] <= spread <= LATENT_SPREAD[1] and error < 0.2
        return good, f"standard deviation {spread:.2f} (about 1), error of the round trip {error:.3f}"

    @torch.no_grad()
    def prediction_type(self) -> tuple[bool, str]:
        """Read as what it says it predicts, the model finds clean latents better than read otherwise."""
        claimed = getattr(self.denoiser, "prediction_type", "epsilon")
        errors = {kind: 0.0 for kind in dict.fromkeys([claimed, *PREDICTIONS])}
        x0 = self.denoiser.encode(natural_pictures(2, self.denoiser.image_size, self.rng).to(self.device))
        for part in LEVELS:
            t = self._at(round(part * self.denoiser.num_train_timesteps)).repeat(len(x0))
            alpha_bar = self.denoiser.alphas_cumprod[t]
            x_t = score.add_noise(x0, self._noise(len(x0)), alpha_bar)
            out = self._raw(x_t, t)
            for kind in errors:
                eps = self._read(kind, out, x_t, t)
                found = score.predicted_x0(x_t, eps, alpha_bar)
                errors[kind] += (found - x0).square().mean().sqrt().item() / len(LEVELS)
        best = min(errors, key=lambda kind: errors[kind])
        shown = ", ".join(f"{kind} {error:.2f}" for kind, error in errors.items())
        return best == claimed, f"error of one step, read as {shown}"

    @torch.no_grad()
    def guidance_direction(self) -> tuple[bool, str]:
        """The noise in the sampled picture is found better with its own text than with another one."""
        t = torch.tensor([round(part * self.denoiser.num_train_timesteps) for part in LEVELS] * 4)
        t = t.to(self.device)
        noise = self._noise(len(t))
        x_t = score.add_noise(self.latents.expand(len(t), -1, -1, -1), noise, self.denoiser.alphas_cumprod[t])
        own, empty, other = (self._predict(x_t, t, row) for row in range(3))
        towards = ((own - empty) * (noise - empty)).sum() / (own - empty).square().sum().clamp_min(1e-12)
        errors = [(one - noise).square().mean().sqrt().item() for one in (own, empty, other)]
        good = errors[0] < errors[2] and towards.item() > 0
        return good, (
            f"error with its own text {errors[0]:.4f}, without {errors[1]:.4f}, with another {errors[2]:.4f}"
        )

    def distillation(self) -> tuple[bool, str]:
        """Ten steps of score distillation bring a spoilt picture nearer to the one that was sampled."""
        picture = self.denoiser.decode(self.latents + SPOILT * self._noise()).clamp(0, 1).requires_grad_()
        before = self._distance(picture)
        optimizer = torch.optim.Adam([picture], lr=0.02)
        for _ in range(SDS_STEPS):
            optimizer.zero_grad()
            self._sds(picture).backward()
            optimizer.step()
        after = self._distance(picture)
        return after < SDS_DROP * before, f"squared distance of the latents {before:.4f} -> {after:.4f}"

    @torch.no_grad()
    def _distance(self, picture: Tensor) -> float:
        return F.mse_loss(self.denoiser.encode(picture), self.latents).item()

    def _sds(self, picture: Tensor) -> Tensor:
        """Its gradient is that of SDS, the mean over two noises, which calms it."""
        latents = self.denoiser.encode(picture)
        t = self._at(int(SDS_LEVEL * self.denoiser.num_train_timesteps)).repeat(2)
        alpha_bar, noise = self.denoiser.alphas_cumprod[t], self._noise(2)
        x_t = score.add_noise(latents.detach().expand_as(noise), noise, alpha_bar)
        grad = score.per_sample(1 - alpha_bar, noise) * (self._guided(x_t, t, SDS_SCALE) - noise)
        return score.specified_gradient(latents, score.clean_gradient(grad.mean(0, keepdim=True)))

    def _timed(self, name: str, experiment: Callable[[], tuple[bool, str]]) -> Finding:
        start = time.perf_counter()
        try:
            passed, detail = experiment()
        except MaquetteError as err:
            passed, detail = False, f"{_CRASH} {err.summary}"
        except (RuntimeError, ValueError, TypeError, KeyError) as err:
            passed, detail = False, f"{_CRASH} {type(err).__name__}: {(str(err).splitlines() or [''])[0]}"
        synchronize()
        return Finding(name, passed, detail, time.perf_counter() - start, peak_memory())

    def _noise(self, count: int = 1) -> Float[Tensor, "N C h w"]:
        one = self.denoiser
        shape = (count, one.latent_channels, one.latent_size, one.latent_size)
        return torch.randn(shape, generator=self.rng).to(self.device)

    def _at(self, level: int) -> Int[Tensor, "1"]:
        return torch.tensor([level], device=self.device)

    def _predict(self, x_t: Tensor, t: Tensor, row: int) -> Tensor:
        """With the prompt (row 0), no text (1) or the other prompt (2)."""
        text = self.text[[row] * len(x_t)]
        return self.denoiser.predict_noise(x_t, t, text.hidden, text.pooled)

    def _guided(self, x_t: Tensor, t: Tensor, scale: float = GUIDANCE_SCALE) -> Tensor:
        return score.classifier_free(self._predict(x_t, t, 1), self._predict(x_t, t, 0), scale)

    def _raw(self, x_t: Tensor, t: Tensor) -> Tensor:
        network: Any = self.denoiser
        text = self.text[[1] * len(x_t)]
        return network.predict(x_t, t, text.hidden, text.pooled)

    def _read(self, kind: str, out: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        network: Any = self.denoiser
        if kind == network.prediction_type:
            return network.noise_in(out, x_t, t)
        return implied_noise(kind, out, x_t, network.alphas_cumprod[t])


_CRASH: Final = "it failed:"


def natural_pictures(count: int, side: int, rng: torch.Generator) -> Float[Tensor, "B 3 s s"]:
    """Pictures in [0, 1] with the statistics of photographs: correlated colors, and amplitudes that fall with
    the frequency (Field 1987), on a bright ground.
    """
    frequency = torch.fft.fftfreq(side)
    radius = torch.hypot(frequency[:, None], frequency[None, : side // 2 + 1]).clamp_min(1 / side)
    grey, color = (
        torch.fft.irfft2(
            torch.fft.rfft2(torch.randn(count, planes, side, side, generator=rng)) / radius**1.2,
            s=(side, side),
        )
        for planes in (1, 3)
    )
    mixed = grey / grey.std((1, 2, 3), keepdim=True) + 0.5 * color / color.std((1, 2, 3), keepdim=True)
    return (0.6 + 0.25 * mixed).clamp(0, 1)
