"""Trains a small language model of captions: a Transformer under the same engine as everything else."""

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.core.log import get_logger
from maquette.data.toyworld.captions import words
from maquette.data.toyworld.dataset import COLOR_NAMES, KIND_NAMES
from maquette.diffusion.caption_model import (
    build_caption_model,
    build_caption_tokenizer,
    complete,
    load_caption_model,
    next_token_loss,
    save_caption_model,
    tokenize_captions,
)
from maquette.systems.prior_vae import move_to_top
from maquette.training.base_system import BaseSystem

log = get_logger(__name__)


class CaptionModel(BaseSystem):
    """Next-word prediction; leaves the folder ``caption-model``, which transformers' pipelines run."""

    @dataclass(kw_only=True)
    class Config(BaseSystem.Config):
        """Options of `caption-model-system`."""

        width: int = 64
        """Channels of the Transformer."""

        layers: int = 2
        """Blocks."""

        heads: int = 4
        """Attention heads of a block."""

        max_tokens: int = 16
        """Longest text, in words."""

        label_smoothing: float = 0.0
        """Share of the probability that is spread over all words in training."""

        beginnings: list[str] = field(default_factory=lambda: ["a red", "an orange car,", "a"])
        """Texts that are written on at the end, for people to read."""

        def __post_init__(self) -> None:
            for name in ("width", "layers", "heads", "max_tokens"):
                if getattr(self, name) < 1:
                    raise ConfigError(f"system.{name}", getattr(self, name), "an integer above 0")
            if self.width % self.heads:
                raise ConfigError("system.width", self.width, f"a multiple of system.heads, {self.heads}")
            if not 0.0 <= self.label_smoothing < 1.0:
                raise ConfigError("system.label_smoothing", self.label_smoothing, "a number in [0, 1)")

    cfg: Config

    def configure(self) -> None:
        """Build the tokenizer and the network."""
        vocabulary = words(list(KIND_NAMES), list(COLOR_NAMES))
        self.tokenizer = build_caption_tokenizer(vocabulary, self.cfg.max_tokens)
        self.network = build_caption_model(self.tokenizer, self.cfg.width, self.cfg.layers, self.cfg.heads)

    def training_step(self, batch: list[str], batch_idx: int) -> dict[str, Tensor]:
        """Cross entropy of every next word."""
        self.set_loss("next_token", self.loss_of(batch, self.cfg.label_smoothing))
        return {"loss": self.total_loss()}

    def validation_step(self, batch: list[str], batch_idx: int) -> None:
        """Cross entropy and perplexity on captions that were never trained on."""
        loss = self.loss_of(batch)
        self.log("val/next_token", loss, batch_size=len(batch))
        self.log("val/perplexity", loss.exp(), batch_size=len(batch))

    def test_step(self, batch: list[str], batch_idx: int) -> None:
        """As in validation."""
        self.validation_step(batch, batch_idx)

    def predict_step(self, batch: list[str], batch_idx: int) -> None:
        """Nothing to predict: the weights are the result."""

    def on_predict_epoch_end(self) -> None:
        """Write some beginnings on, and keep the whole model."""
        texts = complete(self.network, self.tokenizer, list(self.cfg.beginnings))
        self.save_json("samples.json", dict(zip(self.cfg.beginnings, texts, strict=True)))
        for beginning, text in zip(self.cfg.beginnings, texts, strict=True):
            log.info("%s -> %s", beginning, text)

    def finish(self, folder: Path) -> list[Path]:
        """The model and its tokenizer at the top of the run, read back."""
        made = self.get_save_path("caption-model")
        save_caption_model(made, self.network, self.tokenizer)
        load_caption_model(made)
        return move_to_top(made, folder)

    def loss_of(self, captions: list[str], smoothing: float = 0.0) -> Tensor:
        """Nats a word."""
        ids, counts = tokenize_captions(self.tokenizer, captions)
        return next_token_loss(self.network, ids.to(self.device), counts.to(self.device), smoothing)
