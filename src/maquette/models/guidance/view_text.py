"""What a model is told about pictures: a prompt together with the cameras that ask for it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from maquette.models.prompt_processors.base import PromptUtils, TextEncoding


class ViewCondition(ABC):
    """What a model is told about B pictures, in the rows in which a guidance asks for it."""

    @property
    def perp_neg(self) -> bool:
        """Whether other views are negatives."""
        return False

    @property
    def has_negative(self) -> bool:
        """Whether the unconditional rows read a negative prompt, and are not those of `null`."""
        return False

    def without_negative(self) -> "ViewCondition":
        """The same without the negative prompt."""
        return self

    @abstractmethod
    def first(self, n: int) -> "ViewCondition":
        """That of the first n pictures."""

    @abstractmethod
    def encoding(self) -> TextEncoding:
        """2B rows [cond; uncond]."""

    @abstractmethod
    def null(self) -> TextEncoding:
        """B rows: no condition at all."""

    @abstractmethod
    def prompts(self) -> list[str]:
        """In words, for each picture."""

    def encoding_perp_neg(self) -> tuple[TextEncoding, Float[Tensor, "B K"]]:
        """2B + BK rows [cond; uncond; negatives, each picture's K together] and the negatives' weights."""
        raise NotImplementedError


@dataclass(frozen=True)
class ViewText(ViewCondition):
    """A prompt for B pictures; angles in degrees."""

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
        """Whether other views are negatives."""
        return self.utils.use_perp_neg and self.view_dependent

    @property
    def has_negative(self) -> bool:
        """Whether there is a negative prompt."""
        return self.utils.null is not None

    def without_negative(self) -> "ViewText":
        """The same without the negative prompt."""
        if self.utils.null is None:
            return self
        return replace(self, utils=replace(self.utils, uncond=self.utils.null, null=None))

    def prompts(self) -> list[str]:
        """The words for each picture."""
        if not self.view_dependent:
            return [self.utils.prompt] * len(self.azimuth)
        rows = self.utils.directions.index(self.elevation, self.azimuth).tolist()
        return [self.utils.prompts_vd[row] for row in rows]
