"""No prompt, for guidances that read none."""

from collections.abc import Sequence
from dataclasses import dataclass

from maquette.core.errors import UserError
from maquette.core.registry import register
from maquette.diffusion.text import TextEncoding
from maquette.models.prompt_processors.base import PromptProcessor


@register("dummy-prompt-processor")
class DummyPromptProcessor(PromptProcessor):
    """Has every option of a prompt processor, and loads and encodes nothing."""

    @dataclass(kw_only=True)
    class Config(PromptProcessor.Config):
        """The options of every prompt processor; only `prompt` is kept, as a name."""

        prompt: str = ""
        """What the asset is called; no model reads it."""
        pretrained_model_name_or_path: str = ""
        """Never read."""

        def __post_init__(self) -> None:
            """Anything goes: nothing is used."""

    def configure(self) -> None:
        """Keep the prompt's words."""
        self.prompt: str = self.cfg.prompt

    def __call__(self) -> None:
        """Nothing; a guidance that reads text says that there is none."""
        return None

    def encode(self, texts: Sequence[str]) -> TextEncoding:
        """There is no text encoder.

        Raises:
            UserError: always.
        """
        raise UserError(
            "The dummy-prompt-processor cannot encode text.",
            hint="set system.prompt_processor_type=stable-diffusion-prompt-processor",
        )
