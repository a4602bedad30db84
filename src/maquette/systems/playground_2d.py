"""The quickest way to look at a guidance: plain pictures, or latents, optimised under it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maquette.core.errors import ConfigError
from maquette.core.paths import EMBEDDED_PRIOR
from maquette.core.processes import check_alone
from maquette.core.registry import find
from maquette.io.images import read_image, write_image
from maquette.models.networks.init import init_parameters
from maquette.ops.image import resize
from maquette.systems.guided import Guided, check_freq
from maquette.training.base_system import BaseSystem

KINDS = ("latents", "pixels")
CELL = 128
"""Height and width of a picture on a progress sheet, pixels."""
COLUMNS = 8
"""Pictures in a row of it."""
PREVIEW = 256
"""Smallest height of the final picture at the top of the run folder, pixels."""
MODEL = "pretrained_model_name_or_path"
"""What guidances and prompt processors call the model."""
FLAT = 0.02
"""Spread of the values from which pixels start: grey."""


class Canvas(nn.Module):
    """N pictures that are nothing but their own values.

    Args:
        count: N.
        size: height and width.
        channels: 3 for pixels, those of the model for latents.
        latents: whether the values are latents, or the logits of pixels.
    """

    def __init__(self, count: int, size: int, channels: int, latents: bool) -> None:
        super().__init__()
        self.latents = latents
        self.values = nn.Parameter(torch.zeros(count, size, size, channels))

    @torch.no_grad()
    def init_from(self, generator: torch.Generator) -> None:
        """Latents of pure noise, or grey pixels."""
        noise = torch.randn(self.values.shape, generator=generator)
        self.values.copy_(noise if self.latents else FLAT * noise)

    @torch.no_grad()
    def begin_with(self, given: Float[Tensor, "#N h w C"]) -> None:
        """Start from latents, or from pixels in [0, 1]."""
        self.values.copy_(given if self.latents else torch.logit(given, eps=1e-2))

    def forward(self) -> Float[Tensor, "N h w C"]:
        """Latents, or pixels in [0, 1]."""
        return self.values if self.latents else self.values.sigmoid()


class Playground2D(Guided, BaseSystem):
    """Optimises `pictures` plain pictures (particles, or views), each seen by one camera of the data."""

    @dataclass(kw_only=True)
    class Config(BaseSystem.Config):
        """The guidance, and what is optimised under it."""

        guidance_type: str = ""
        """Registered name of the guidance."""
        guidance: dict[str, Any] = field(default_factory=dict)
        """Its config."""
        prompt_processor_type: str = ""
        """Registered name of the prompt processor; empty for a guidance that reads no text."""
        prompt_processor: dict[str, Any] = field(default_factory=dict)
        """Its config."""
        optimise: str = "latents"
        """latents (which the model decodes) or pixels."""
        pictures: int = 1
        """How many; as many as the data has cameras in a batch."""
        size: int = 0
        """Height and width of pixels; 0 for the model's own size."""
        start: str | None = None
        """Picture to begin with; null for noise."""
        cond_image: str | None = None
        """The second picture of each view (`cond_rgb`), for a guidance that wants one; null for `start`."""
        freq: dict[str, Any] = field(default_factory=dict)
        """How often, in steps: `guidance_eval`, sheets of what the guiding model sees (0 for none)."""

        def __post_init__(self) -> None:
            check_freq(self.freq)
            if not self.guidance_type:
                raise ConfigError("system.guidance_type", "", "the registered name of a guidance")
            if self.optimise not in KINDS:
                raise ConfigError("system.optimise", self.optimise, f"one of {', '.join(KINDS)}")
            if self.pictures < 1 or self.size < 0:
                name = "pictures" if self.pictures < 1 else "size"
                raise ConfigError(f"system.{name}", getattr(self, name), "a whole number above 0")

    cfg: Config

    def configure(self) -> None:
        """Build the guidance, which knows the sizes, and the pictures.

        Raises:
            ConfigError: there are several processes, which would all have the same pictures.
        """
        if self.mode == "train":
            check_alone("every step optimises all pictures")
        cfg = self.cfg
        guidance, processor = of_one_model(cfg.guidance, cfg.prompt_processor)
        self.guidance = find(cfg.guidance_type, "guidance")(guidance)
        words = cfg.prompt_processor_type if self.mode == "train" else ""
        self.prompt_processor = find(words, "prompt-processor")(processor) if words else None
        self.add_updateable(self.guidance, self.prompt_processor)
        self.prompt_utils: Any = None
        self.canvas = self._canvas()
        init_parameters(self, self.streams.seed)
        self.second: dict[str, Tensor] = {}
        if self.mode == "train":
            self._read_pictures()
        self._check_all_trained()

    def loss_weight(self, name: str) -> float:
        """The weight of ``loss_NAME``; 1 where the recipe has no ``lambda_NAME``."""
        return super().loss_weight(name) if f"lambda_{name}" in self.loss_weights else 1.0

    def on_fit_start(self) -> None:
        """Read the prompt."""
        if self.prompt_processor is not None:
            self.prompt_utils = self.prompt_processor()

    def preprocess_data(self, batch: Any, stage: str) -> None:
        """Hold the number of cameras against that of the pictures."""
        if len(batch["azimuth"]) != self.cfg.pictures:
            raise ConfigError(
                "system.pictures", self.cfg.pictures, f"{len(batch['azimuth'])} (data.batch_size)"
            )

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """The sum of the guidance's losses."""
        latents = self.canvas.latents
        second = {name: one.to(self.device) for name, one in self.second.items()}
        answer = self.ask_guidance(self.canvas(), batch, as_latents=latents, **second)
        if not any(name.startswith("loss_") for name in answer):
            raise ConfigError(
                "system.guidance_type",
                self.cfg.guidance_type,
                "a guidance that gives a loss",
                "system.guidance.use_sds=true makes those that edit pictures give one",
            )
        return {"loss": self.total_loss()}

    # pictures -----------------------------------------------------------------------------------------------

    def as_pictures(self, given: Float[Tensor, "B H W C"]) -> Float[Tensor, "B h w 3"]:
        """Pixels as they are, latents decoded."""
        if not self.canvas.latents:
            return given
        return self.guidance.denoiser.decode(given.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).clamp(0, 1)

    @torch.no_grad()
    def images(self) -> Float[Tensor, "N H W 3"]:
        """The pictures as they are now."""
        return self.as_pictures(self.canvas())

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """A sheet of all pictures."""
        self._sheet(batch, "val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """A sheet of all pictures."""
        self._sheet(batch, "test")

    def predict_step(self, batch: Any, batch_idx: int) -> None:
        """Each picture as a file."""
        for number, image in enumerate(self.images()):
            self.save_rgb_image(f"it{self.true_global_step}-export/{number}.png", image)

    def finish(self, folder: Path) -> list[Path]:
        """All pictures side by side, ``preview.png``."""
        row = torch.cat(list(self.images().cpu()), dim=1)
        times = -(-PREVIEW // row.shape[0])
        return [write_image(folder / "preview.png", resize(row, times * row.shape[0], times * row.shape[1]))]

    def _sheet(self, batch: Any, name: str) -> None:
        cells = [{"type": "rgb", "img": image, "kwargs": {"data_format": "HWC"}} for image in self.images()]
        rows = [cells[start : start + COLUMNS] for start in range(0, len(cells), COLUMNS)]
        step = self.true_global_step
        angles = zip(batch["azimuth"].tolist(), batch["elevation"].tolist(), strict=True)
        texts = [f"a{azimuth:.0f} e{elevation:.0f}" for azimuth, elevation in angles]
        size = max(CELL, cells[0]["img"].shape[0])
        self.save_image_grid(f"it{step}-{name}.png", rows, size, f"{name}_step", step, texts)

    # building -----------------------------------------------------------------------------------------------

    def _read_pictures(self) -> None:
        """The picture to begin with, and the second one. A run that goes on has begun; where the one was the
        other too and is gone, a guidance that needs it says so.
        """
        start = self.cfg.start
        if start is not None and not self.resumed:
            self.canvas.begin_with(self._fitting(_picture(start)))
        gone = self.resumed and start is not None and not Path(start).is_file()
        second = self.cfg.cond_image or (None if gone else start)
        if second is not None:
            self.second = {"cond_rgb": _picture(second)}

    def _canvas(self) -> Canvas:
        cfg, latents = self.cfg, self.cfg.optimise == "latents"
        model = getattr(self.guidance, "denoiser", None)
        if model is None and (latents or not cfg.size):
            raise ConfigError(
                "system.size", cfg.size, "pixels, with optimise: pixels: this guidance tells none"
            )
        if latents:
            return Canvas(cfg.pictures, model.latent_size, model.latent_channels, True)
        return Canvas(cfg.pictures, cfg.size or model.image_size, 3, False)

    def _fitting(self, picture: Float[Tensor, "1 H W 3"]) -> Float[Tensor, "1 h w C"]:
        """A picture as the canvas holds it."""
        if not self.canvas.latents:
            size = self.canvas.values.shape[1]
            return resize(picture[0], size, size)[None]
        model = self.guidance.denoiser
        sized = resize(picture[0], model.image_size, model.image_size)[None].permute(0, 3, 1, 2)
        with torch.no_grad():
            return model.encode(sized.to(self.guidance.device)).permute(0, 2, 3, 1).cpu()

    def _check_all_trained(self) -> None:
        """A guidance that trains a model along needs its place among the optimizer's groups."""
        trains = isinstance(self.guidance, nn.Module) and any(True for _ in self.guidance.parameters())
        groups = self.cfg.optimizer.get("params") or {"guidance": {}}
        if self.mode == "train" and trains and "guidance" not in groups:
            raise ConfigError(
                "system.optimizer.params",
                list(groups),
                "canvas and guidance: this guidance trains a model along",
                "add system.optimizer.params.guidance.lr=0.001",
            )


def of_one_model(
    guidance: Mapping[str, Any], processor: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configs of guidance and prompt processor, where the recipe gives both the same model, after a name
    for it that only the guidance knows (`ip2p_name_or_path`).

    Raises:
        ConfigError: there is a ControlNet for the embedded prior.
    """
    model = guidance.get("ip2p_name_or_path")
    if model and MODEL in processor and guidance.get(MODEL) == processor[MODEL]:
        return {**guidance, MODEL: model}, {**processor, MODEL: model}
    if guidance.get("controlnet_name_or_path") and guidance.get(MODEL) == EMBEDDED_PRIOR:
        raise ConfigError(
            f"system.prompt_processor.{MODEL}",
            EMBEDDED_PRIOR,
            "the model that the ControlNet belongs to, a Stable Diffusion 1 or 2",
        )
    return dict(guidance), dict(processor)


def _picture(path: str) -> Float[Tensor, "1 H W 3"]:
    """A picture in [0, 1], what is transparent white."""
    image = read_image(path)
    if image.shape[-1] == 4:
        image = image[..., :3] * image[..., 3:] + (1.0 - image[..., 3:])
    return image.expand(*image.shape[:2], 3)[None]
