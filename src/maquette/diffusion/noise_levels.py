"""The noise levels of a diffusion model, and what its network says about the noise at each."""

from __future__ import annotations

from typing import Any, Final

from jaxtyping import Float, Int
from torch import Tensor

from maquette.core.errors import UserError
from maquette.diffusion.noise_predictor import NoisePredictor
from maquette.diffusion.score import eps_from_v, eps_from_x0, velocity

PREDICTIONS: Final = ("epsilon", "v_prediction", "sample")
"""What a network may predict: the noise, the velocity, or what is clean."""


class NoiseLevels(NoisePredictor):
    """The T levels of DDPM and the prediction type, of a scheduler; the scheduler's steps are not used.

    Raises:
        UserError: the scheduler is of another kind.
    """

    def __init__(self, scheduler: Any) -> None:
        if not hasattr(scheduler, "alphas_cumprod") or not hasattr(scheduler.config, "prediction_type"):
            raise UserError(
                f"A model with a {type(scheduler).__name__} cannot guide here: it has no DDPM noise levels.",
                hint="use a model of the Stable Diffusion 1, 2 or SDXL family",
            )
        if scheduler.config.prediction_type not in PREDICTIONS:
            raise UserError(
                f"The prediction type {scheduler.config.prediction_type!r} of the model is not known."
            )
        self.prediction_type: str = scheduler.config.prediction_type
        self.alphas_cumprod: Float[Tensor, "T"] = scheduler.alphas_cumprod.detach().float()

    def noise_in(
        self, out: Float[Tensor, "N *S"], x_t: Float[Tensor, "N *S"], t: Int[Tensor, "N"]
    ) -> Float[Tensor, "N *S"]:
        """The noise that a prediction of the network implies."""
        return implied_noise(self.prediction_type, out, x_t, self.alphas_cumprod[t])

    def target(
        self, x0: Float[Tensor, "N *S"], eps: Float[Tensor, "N *S"], t: Int[Tensor, "N"]
    ) -> Float[Tensor, "N *S"]:
        """What the network should predict for clean latents and the noise that was put on them."""
        if self.prediction_type == "epsilon":
            return eps
        return x0 if self.prediction_type == "sample" else velocity(x0, eps, self.alphas_cumprod[t])


def implied_noise(
    prediction_type: str,
    out: Float[Tensor, "N *S"],
    x_t: Float[Tensor, "N *S"],
    alpha_bar: Float[Tensor, "N"],
) -> Float[Tensor, "N *S"]:
    """The noise that an output means, if it is of the given type."""
    if prediction_type == "epsilon":
        return out
    convert = eps_from_v if prediction_type == "v_prediction" else eps_from_x0
    return convert(out, x_t, alpha_bar)
