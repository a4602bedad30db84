"""What systems with a guidance share: asking it, its losses, and sheets of what the guiding model sees."""

from collections.abc import Mapping
from textwrap import fill
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import ConfigError, asked_for_by
from maquette.core.log import get_logger
from maquette.models.guidance.base import GuidanceEval

log = get_logger(__name__)

CELL = 160
"""Height and width of a picture on a sheet, pixels."""

LINE = 26
"""Letters that fit into a picture's width."""

COLUMNS = {"imgs_noisy": "t={t}", "imgs_1step": "one step", "imgs_1orig": "implied", "imgs_final": "final"}
"""The pictures of an evaluation from left to right, and what is written on them."""


class Guided:
    """Mixin of a system with `guidance`, `prompt_utils`, and `freq` in its config."""

    def ask_guidance(
        self,
        pictures: Float[Tensor, "B H W C"],
        batch: Any,
        as_latents: bool = False,
        **more: Any,
    ) -> Any:
        """The guidance's answer; each `loss_NAME` of it counts `lambda_NAME`, single numbers are logged.

        Every `freq.guidance_eval` steps a sheet of what the guiding model sees is saved.

        Raises:
            ConfigError: the recipe names no guidance, or has no weight for a loss of it.
        """
        if self.guidance is None:
            raise ConfigError("system.guidance_type", "", "the registered name of a guidance")
        due = self.guidance_eval_due()
        with self.timed("guidance"):
            guided = self.guidance(
                pictures, self.prompt_utils, **batch, rgb_as_latents=as_latents, guidance_eval=due, **more
            )
        for name, value in guided.items():
            if name.startswith("loss_"):
                option = "guidance.use_img_loss" if name.endswith("_img") else "guidance_type"
                with asked_for_by(f"system.{option}"):
                    self.set_loss(name.removeprefix("loss_"), value)
            elif isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1):
                self.log(f"train/{name}", value.detach() if isinstance(value, Tensor) else value)
        if due:
            self.guidance_evaluation_save(pictures, guided.get("eval"))
        return guided

    def guidance_eval_due(self) -> bool:
        """Whether a sheet is to be made in this step."""
        every = self.cfg.freq.get("guidance_eval", 0)
        return every > 0 and self.true_global_step % every == 0

    def guidance_evaluation_save(
        self, comp_rgb: Float[Tensor, "B H W C"], guidance_eval_out: GuidanceEval | None
    ) -> None:
        """A row a picture: itself, noised, after one step, the clean one implied by that step, denoised."""
        seen = guidance_eval_out
        if seen is None:
            log.warning("the guidance made no evaluation, so freq.guidance_eval has no effect")
            return
        step = self.true_global_step
        columns = [seen[name] for name in COLUMNS]
        with torch.no_grad():
            shown = self.as_pictures(comp_rgb[: len(seen.texts)])
        rows = [[_cell(one[row]) for one in (shown, *columns)] for row in range(len(seen.texts))]
        texts = [
            text
            for words, t in zip(seen.texts, seen.timesteps.tolist(), strict=True)
            for text in (fill(words, LINE), *(heading.format(t=t) for heading in COLUMNS.values()))
        ]
        self.save_image_grid(
            f"it{step}-train.png", rows, align=CELL, name="guidance_eval", step=step, texts=texts
        )

    def as_pictures(self, given: Float[Tensor, "B H W C"]) -> Float[Tensor, "B h w 3"]:
        """What the guidance is given, as something to look at."""
        return given


def check_freq(freq: Mapping[str, Any]) -> None:
    """Refuse a frequency of sheets that is no number of steps.

    Raises:
        ConfigError: it is not a whole number, 0 or above.
    """
    every = freq.get("guidance_eval", 0)
    if not isinstance(every, int) or every < 0:
        raise ConfigError("system.freq.guidance_eval", every, "steps between two sheets; 0 for none")


def _cell(picture: Float[Tensor, "H W C"]) -> dict[str, Any]:
    return {"type": "rgb", "img": picture, "kwargs": {"data_format": "HWC"}}
