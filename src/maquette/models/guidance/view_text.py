"""A prompt together with the cameras that ask for it."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from maquette.models.prompt_processors.base import PromptUtils, TextEncoding


@dataclass(frozen=True)
class ViewText:
    """What is said to the model about B pictures; angles in degrees."""

    utils: PromptUtils
    elevation: Float[Tensor, "B"]
    azimuth: Float[Tensor, "B"]
    view_dependent: bool

    def first(self, n: int) -> "ViewText":
        """That of the first n pictures."""
        return ViewText(self.utils, self.elevation[:n], self.azimuth[:n], self.view_dependent)

    def encoding(self) -> TextEncoding:
        """2B rows [cond; uncond]."""
        return self.utils.encoding(self.elevation, self.azimuth, self.view_dependent)

    def encoding_perp_neg(self) -> tuple[TextEncoding, Float[Tensor, "B 2"]]:
        """4B rows [cond; uncond; negatives, each picture's two together] and the negatives' weights."""
        return self.utils.encoding_perp_neg(self.elevation, self.azimuth)

    def null(self) -> TextEncoding:
        """B rows: no text at all, whatever the negative prompt says."""
        null = self.utils.uncond if self.utils.null is None else self.utils.null
        return null[[0] * len(self.azimuth)]

    @property
    def perp_neg(self) -> bool:
        """Whether neighbouring views are negatives."""
        return self.utils.use_perp_neg and self.view_dependent

    def prompts(self) -> list[str]:
        """The words for each picture."""
        if not self.view_dependent:
            return [self.utils.prompt] * len(self.azimuth)
        rows = self.utils.directions.index(self.elevation, self.azimuth).tolist()
        return [self.utils.prompts_vd[row] for row in rows]
