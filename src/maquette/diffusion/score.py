"""The maths of diffusion models that distillation needs: small pure functions that read like the papers.

Symbols: `alpha_bar` is the cumulated product of 1 - beta (DDPM, Ho et al. 2020), x0 a clean latent, eps the
noise that was added, x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps. Every `alpha_bar` argument has one
value a sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from maquette.core.random import StepRandom


def add_noise(
    x0: Float[Tensor, "B *S"], eps: Float[Tensor, "B *S"], alpha_bar: Float[Tensor, "B"]
) -> Float[Tensor, "B *S"]:
    """x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps (DDPM, eq. 4)."""
    alpha_bar = per_sample(alpha_bar, x0)
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps


def predicted_x0(
    x_t: Float[Tensor, "B *S"], eps: Float[Tensor, "B *S"], alpha_bar: Float[Tensor, "B"]
) -> Float[Tensor, "B *S"]:
    """The clean latent that a noise prediction implies: (x_t - sqrt(1 - alpha_bar) eps) / sqrt(alpha_bar)
    (DDIM, eq. 9)."""
    alpha_bar = per_sample(alpha_bar, x_t)
    return (x_t - (1 - alpha_bar).sqrt() * eps) / alpha_bar.sqrt().clamp_min(1e-6)


def velocity(
    x0: Float[Tensor, "B *S"], eps: Float[Tensor, "B *S"], alpha_bar: Float[Tensor, "B"]
) -> Float[Tensor, "B *S"]:
    """v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0 (Salimans and Ho 2022, section 4)."""
    alpha_bar = per_sample(alpha_bar, x0)
    return alpha_bar.sqrt() * eps - (1 - alpha_bar).sqrt() * x0


def eps_from_v(
    v: Float[Tensor, "B *S"], x_t: Float[Tensor, "B *S"], alpha_bar: Float[Tensor, "B"]
) -> Float[Tensor, "B *S"]:
    """Noise from a velocity: sqrt(alpha_bar) v + sqrt(1 - alpha_bar) x_t (Salimans and Ho 2022, app. D)."""
    alpha_bar = per_sample(alpha_bar, x_t)
    return alpha_bar.sqrt() * v + (1 - alpha_bar).sqrt() * x_t


def eps_from_x0(
    x0: Float[Tensor, "B *S"], x_t: Float[Tensor, "B *S"], alpha_bar: Float[Tensor, "B"]
) -> Float[Tensor, "B *S"]:
    """Noise from a predicted clean latent: the inverse of `predicted_x0`."""
    alpha_bar = per_sample(alpha_bar, x_t)
    return (x_t - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt().clamp_min(1e-6)


def ddim_step(
    x_t: Float[Tensor, "B *S"],
    eps: Float[Tensor, "B *S"],
    alpha_bar: Float[Tensor, "B"],
    alpha_bar_next: Float[Tensor, "B"],
) -> Float[Tensor, "B *S"]:
    """One deterministic step to the noise level `alpha_bar_next` (DDIM, eq. 12 with sigma = 0)."""
    return add_noise(predicted_x0(x_t, eps, alpha_bar), eps, alpha_bar_next)


def classifier_free(
    eps_uncond: Float[Tensor, "B *S"], eps_text: Float[Tensor, "B *S"], scale: float
) -> Float[Tensor, "B *S"]:
    """eps_uncond + scale (eps_text - eps_uncond) (Ho and Salimans 2022): 0 ignores the text, 1 is the plain
    model.

    This is the only definition of the guidance scale in the package.
    """
    return eps_uncond + scale * (eps_text - eps_uncond)


def perpendicular(x: Float[Tensor, "B *S"], to: Float[Tensor, "B *S"]) -> Float[Tensor, "B *S"]:
    """The part of `x` that is orthogonal to `to`, each sample by itself."""
    dims = tuple(range(1, x.ndim))
    length = (to * to).sum(dims, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    return x - (x * to).sum(dims, keepdim=True) / length * to


def perp_neg(
    eps_uncond: Float[Tensor, "B *S"],
    eps_text: Float[Tensor, "B *S"],
    eps_negative: Float[Tensor, "B K *S"],
    weights: Float[Tensor, "B K"],
    scale: float,
) -> Float[Tensor, "B *S"]:
    """Perp-Neg (Armandpour et al. 2023, eq. 8): negatives act only across the direction of the text.

    `weights` are the (negative) weights of each sample's K negatives; with all of them zero it is
    `classifier_free`.
    """
    towards = eps_text - eps_uncond
    total = towards
    for k in range(eps_negative.shape[1]):
        total = total + per_sample(weights[:, k], towards) * perpendicular(
            eps_negative[:, k] - eps_uncond, towards
        )
    return eps_uncond + scale * total


def rescaled(
    guided: Float[Tensor, "B *S"], plain: Float[Tensor, "B *S"], amount: float
) -> Float[Tensor, "B *S"]:
    """A guided prediction with the spread of the plain one, mixed in by `amount` (Lin et al. 2024, 3.4).

    Undoes the overexposure of large guidance scales; 0 changes nothing, 1 takes the plain spread entirely.
    """
    ratio = _spread(plain) / _spread(guided).clamp_min(1e-8)
    return guided * (1.0 + amount * (per_sample(ratio, guided) - 1.0))


def _spread(x: Float[Tensor, "B *S"]) -> Float[Tensor, "B"]:
    """Standard deviation of each sample, summed in an order that does not depend on the batch."""
    return torch.stack([one.std() for one in x])


def _weight_sds(alpha_bar: Tensor) -> Tensor:
    return 1 - alpha_bar


def _weight_uniform(alpha_bar: Tensor) -> Tensor:
    return torch.ones_like(alpha_bar)


def _weight_fantasia3d(alpha_bar: Tensor) -> Tensor:
    return alpha_bar.sqrt() * (1 - alpha_bar)


WEIGHTINGS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "sds": _weight_sds,
    "dreamfusion": _weight_sds,
    "uniform": _weight_uniform,
    "fantasia3d": _weight_fantasia3d,
}
"""w(t) as a function of alpha_bar: sigma^2 of DreamFusion, by two names; one; that of Fantasia3D (Chen et al.
2023)."""


def clean_gradient(grad: Float[Tensor, "*S"], limit: float | None = None) -> Float[Tensor, "*S"]:
    """The gradient with NaN as zero and every element within +-`limit`."""
    grad = torch.nan_to_num(grad)
    return grad if limit is None else grad.clamp(-limit, limit)


def sample_timesteps(
    rng: StepRandom, low: int, high: int, name: str = "guidance/timestep"
) -> Int[Tensor, "B"]:
    """One timestep a sample, uniform in low..high, both included; keyed by sample."""
    return rng.integers(name, low, high)


class SpecifiedGradient(torch.autograd.Function):
    """A scalar whose gradient with respect to `x` is exactly the given one, divided by the batch size.

    Its value is |grad|^2 / (2 B), computed in at least float32, so that it does not overflow under autocast;
    the incoming gradient (1, or a GradScaler's factor) multiplies the given one before it is cast back to the
    type of `x`.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, grad: Tensor) -> Tensor:
        """Keep the gradient for later; x and grad (B, ...)."""
        wide = grad.detach().to(torch.promote_types(grad.dtype, torch.float32))
        ctx.save_for_backward(wide)
        ctx.dtype = x.dtype
        return 0.5 * (wide * wide).sum() / x.shape[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        """Hand out the kept gradient."""
        (grad,) = ctx.saved_tensors
        return (grad_output * grad / grad.shape[0]).to(ctx.dtype), None


def specified_gradient(x: Float[Tensor, "B *S"], grad: Float[Tensor, "B *S"]) -> Float[Tensor, ""]:
    """The loss whose gradient with respect to `x` is grad / B; see `SpecifiedGradient`."""
    return SpecifiedGradient.apply(x, grad)


def per_sample(value: Float[Tensor, "B"], like: Float[Tensor, "B *S"]) -> Tensor:
    """`value` in the shape (B, 1, ...) and the type of `like`, ready to multiply it."""
    return value.to(like).view(-1, *(1,) * (like.ndim - 1))
