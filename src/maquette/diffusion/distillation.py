"""The rules of score distillation: what a denoiser's answers say about how a picture should change.

One function a paper. Each gives the gradient with respect to the (latent) picture x0; symbols are those of
`maquette.diffusion.score`: eps_hat is a guided noise prediction at x_t, w the weighting of the noise level,
one value a sample. A rule never calls a model: what needs several answers (`invert`) takes a function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maquette.diffusion.score import ddim_step, per_sample

Predict = Callable[[Float[Tensor, "B *S"], Int[Tensor, "B"]], Float[Tensor, "B *S"]]
"""Noise in noised latents at given levels."""

NFSD_LEVEL: Final = 0.2
"""Share of the noise levels below which NFSD trusts the unconditional prediction (200 of 1000 there)."""


def sds_gradient(
    eps_hat: Float[Tensor, "B *S"], eps: Float[Tensor, "B *S"], weight: Float[Tensor, "B"]
) -> Float[Tensor, "B *S"]:
    """w (eps_hat - eps): score distillation sampling (DreamFusion, Poole et al. 2022, eq. 3)."""
    return per_sample(weight, eps) * (eps_hat - eps)


def sjc_gradient(
    eps_hat: Float[Tensor, "B *S"], eps: Float[Tensor, "B *S"], var_red: bool = True
) -> Float[Tensor, "B *S"]:
    """-(D(x + sigma n) - x) / sigma: perturb-and-average scoring (SJC, Wang et al. 2022, eq. 9).

    With D(z) = z - sigma eps_hat and z = x + sigma n it is eps_hat - n. Without variance reduction the score
    is centred on z instead of x, which leaves eps_hat alone.
    """
    return eps_hat - eps if var_red else eps_hat


def vsd_gradient(
    eps_hat: Float[Tensor, "B *S"], eps_phi: Float[Tensor, "B *S"], weight: Float[Tensor, "B"]
) -> Float[Tensor, "B *S"]:
    """w (eps_hat - eps_phi): variational score distillation (ProlificDreamer, Wang et al. 2023, eq. 9).

    `eps_phi` comes from a model that is trained along, on renderings of the particles themselves.
    """
    return per_sample(weight, eps_hat) * (eps_hat - eps_phi)


def csd_gradient(
    eps_text: Float[Tensor, "B *S"],
    eps_uncond: Float[Tensor, "B *S"],
    eps_negative: Float[Tensor, "B *S"],
    weight: Float[Tensor, "B"],
    positive: float = 1.0,
    negative: float = 0.0,
) -> Float[Tensor, "B *S"]:
    """w [p (eps_text - eps_uncond) + n (eps_uncond - eps_negative)]: classifier score distillation (Yu et al.
    2023, CSD).

    The difference of the two predictions is the score of an implicit classifier; with n = 0 there is no
    negative prompt.
    """
    towards = positive * (eps_text - eps_uncond) + negative * (eps_uncond - eps_negative)
    return per_sample(weight, eps_text) * towards


def nfsd_gradient(
    eps_text: Float[Tensor, "B *S"],
    eps_uncond: Float[Tensor, "B *S"],
    eps_negative: Float[Tensor, "B *S"],
    level: Float[Tensor, "B"],
    weight: Float[Tensor, "B"],
    scale: float,
) -> Float[Tensor, "B *S"]:
    """w (delta_D + s delta_C): noise-free score distillation (Katzir et al. 2023, NFSD).

    delta_C = eps_text - eps_uncond is the condition's direction. delta_D, the direction into the domain, is
    eps_uncond at low noise, and eps_uncond - eps_negative above (`level` is t / T).
    """
    low = per_sample((level < NFSD_LEVEL).to(eps_text), eps_text)
    domain = eps_uncond - (1.0 - low) * eps_negative
    return per_sample(weight, eps_text) * (domain + scale * (eps_text - eps_uncond))


def ism_gradient(
    eps_hat: Float[Tensor, "B *S"], eps_interval: Float[Tensor, "B *S"], weight: Float[Tensor, "B"]
) -> Float[Tensor, "B *S"]:
    """w (eps_hat(x_t, t, y) - eps(x_s, s, none)): interval score matching (LucidDreamer, Liang et al. 2023,
    eq. 17), where x_s and x_t, s < t, lie on one DDIM inversion of the picture.
    """
    return per_sample(weight, eps_hat) * (eps_hat - eps_interval)


def dds_gradient(
    eps_target: Float[Tensor, "B *S"], eps_source: Float[Tensor, "B *S"], weight: Float[Tensor, "B"]
) -> Float[Tensor, "B *S"]:
    """w (eps_hat(x_t, target) - eps_hat(x'_t, source)): delta denoising score (Hertz et al. 2023, eq. 5).

    x' is the picture before the edit, noised like x. What a model has to say about any picture, whatever the
    text, is in both predictions and cancels; what is left is what the other text asks for.
    """
    return per_sample(weight, eps_target) * (eps_target - eps_source)


def reconstruction_gradient(
    x: Float[Tensor, "B *S"], x0_hat: Float[Tensor, "B *S"], weight: Float[Tensor, "B"]
) -> Float[Tensor, "B *S"]:
    """w (x - x0_hat): the gradient of w / 2 |x - x0_hat|^2 with the model's picture held fixed (MVDream, Shi
    et al. 2023, section 3.3).

    Times sqrt(alpha_bar / (1 - alpha_bar)) it is SDS; without that factor x0_hat may be changed first, for
    example by `score.rescaled`. With noise from `invert` it is the gradient of SDI (Lukoianov et al. 2024,
    score distillation via inversion).
    """
    return per_sample(weight, x) * (x - x0_hat)


def image_gradient(
    image: Float[Tensor, "B *S"],
    denoised: Float[Tensor, "B *S"],
    weight: Float[Tensor, "B"],
    alpha_bar: Float[Tensor, "B"],
) -> Float[Tensor, "B *S"]:
    """w sqrt(alpha_bar / (1 - alpha_bar)) (x - x0_hat): the distillation gradient in pixels (HiFA, Zhu et al.
    2023, eq. 9).
    """
    ratio = (alpha_bar / (1 - alpha_bar).clamp_min(1e-6)).sqrt()
    return reconstruction_gradient(image, denoised, weight * ratio)


@torch.no_grad()
def invert(
    x0: Float[Tensor, "B *S"],
    levels: Sequence[Int[Tensor, "B"]],
    predict: Predict,
    alphas_cumprod: Float[Tensor, "T"],
) -> Float[Tensor, "B *S"]:
    """The noised latents at `levels[-1]` from which DDIM would lead back to `x0` (Song et al. 2021, sec. 4.3;
    Mokady et al. 2023).

    `levels` ascend from (close to) zero; `x0` is taken as the latents at the first of them.
    """
    x = x0
    for low, high in pairwise(levels):
        x = ddim_step(x, predict(x, low), alphas_cumprod[low], alphas_cumprod[high])
    return x


def noise_between(
    x_t: Float[Tensor, "B *S"], x0: Float[Tensor, "B *S"], alpha_bar: Float[Tensor, "B"]
) -> Float[Tensor, "B *S"]:
    """The noise that leads from `x0` to `x_t`: (x_t - sqrt(alpha_bar) x0) / sqrt(1 - alpha_bar)."""
    alpha_bar = per_sample(alpha_bar, x_t)
    return (x_t - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt().clamp_min(1e-6)


def ascending_levels(
    first: Int[Tensor, "B"] | int, last: Int[Tensor, "B"], steps: int
) -> list[Int[Tensor, "B"]]:
    """`steps` + 1 noise levels from `first` to `last`, evenly spaced, each sample by itself."""
    start = torch.as_tensor(first, device=last.device).expand_as(last)
    return [start + (last - start) * i // steps for i in range(steps + 1)]
