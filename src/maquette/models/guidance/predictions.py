"""What a model says about noised latents, with and without the text."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from maquette.diffusion import score


class Predictions(NamedTuple):
    """Noise predictions for B samples."""

    text: Float[Tensor, "B *S"]
    """With the text, steered away from other views where the prompt asks for it (Perp-Neg)."""
    uncond: Float[Tensor, "B *S"]
    """With the negative prompt, or without any text where there is none."""
    plain: Float[Tensor, "B *S"]
    """With the text alone."""

    def guided(self, scale: float) -> Float[Tensor, "B *S"]:
        """Classifier-free guidance."""
        return score.classifier_free(self.uncond, self.text, scale)
