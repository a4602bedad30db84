"""What is known of pictures besides their pixels: the prompt, and the cameras that took them."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import UserError
from maquette.models.prompt_processors.base import PromptUtils


@dataclass(frozen=True, kw_only=True)
class Views:
    """The views of B pictures; what a batch does not have is None."""

    prompt_utils: PromptUtils | None
    """The prompt."""
    elevation: Float[Tensor, "B"]
    """Of the cameras, degrees."""
    azimuth: Float[Tensor, "B"]
    """Degrees; 0 is the front."""
    camera_distances: Float[Tensor, "B"]
    """From the origin, in world units."""
    c2w: Float[Tensor, "B 4 4"] | None = None
    """From cameras to the world."""
    mvp_mtx: Float[Tensor, "B 4 4"] | None = None
    """From the world to clip space."""
    cond_rgb: Float[Tensor, "#B h w 3"] | None = None
    """A second picture of each view, or one for all, values in [0, 1]."""
    source_rgb: Float[Tensor, "B H W C"] | None = None
    """The pictures before an edit."""
    source_utils: PromptUtils | None = None
    """The prompt of the pictures before an edit."""

    @property
    def prompt(self) -> PromptUtils:
        """The prompt, which must be there.

        Raises:
            UserError: there is none.
        """
        if self.prompt_utils is None:
            raise UserError(
                "This guidance reads a prompt, and there is none.",
                hint="set system.prompt_processor_type=stable-diffusion-prompt-processor and its prompt",
            )
        return self.prompt_utils
