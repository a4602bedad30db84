"""A small convolutional network that says which toy a picture shows, in which colour, and from where."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from maquette.core.output import MappingOutput
from maquette.core.view_words import AZIMUTH_WORDS, ELEVATION_WORDS


@dataclass
class ToyLogits(MappingOutput):
    """Unnormalised log probabilities."""

    kind: Float[Tensor, "B K"]
    """Of the kinds, in the order the network was given."""
    color: Float[Tensor, "B C"]
    """Of the colours."""
    azimuth: Float[Tensor, "B 8"]
    """Of the azimuth sectors."""
    elevation: Float[Tensor, "B 4"]
    """Of the elevation bands."""


@dataclass
class ToyLabels(MappingOutput):
    """What is known, or was found, about pictures; indices in the orders of :class:`ToyLogits`."""

    kind: Int[Tensor, " B"]
    """Index of the kind."""
    color: Int[Tensor, " B"]
    """Index of the colour."""
    azimuth: Int[Tensor, " B"]
    """Index of the azimuth sector."""
    elevation: Int[Tensor, " B"]
    """Index of the elevation band."""


class ToyCNN(nn.Module):
    """Four strided convolutions and a hidden layer in front of four heads.

    The features are flattened, not averaged: where a part stands in the picture says which side is seen.

    Args:
        kinds: number of kinds.
        colors: number of colours.
        size: rows and columns of the pictures, a multiple of 16.
        width: channels after the first convolution.
    """

    def __init__(self, kinds: int, colors: int, size: int = 64, width: int = 24) -> None:
        super().__init__()
        widths = (3, width, 2 * width, 4 * width, 4 * width)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        hidden = 8 * width
        self.features = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(widths[-1] * (size // 16) ** 2, hidden), nn.SiLU()
        )
        outputs = {
            "kind": kinds,
            "color": colors,
            "azimuth": len(AZIMUTH_WORDS),
            "elevation": len(ELEVATION_WORDS),
        }
        self.heads = nn.ModuleDict({name: nn.Linear(hidden, count) for name, count in outputs.items()})

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> ToyLogits:
        """Logits of pictures in [0, 1]."""
        features = self.features(images * 2.0 - 1.0)
        return ToyLogits(**{name: head(features) for name, head in self.heads.items()})

    @torch.no_grad()
    def labels(self, images: Float[Tensor, "B 3 H W"]) -> ToyLabels:
        """The most probable labels of pictures in [0, 1]."""
        logits = self(images)
        return ToyLabels(**{name: logits[name].argmax(-1) for name in self.heads})


def classification_losses(
    logits: ToyLogits, labels: ToyLabels, fronted: Float[Tensor, " B"]
) -> dict[str, Float[Tensor, ""]]:
    """Cross entropy of every head; the azimuth counts only where ``fronted`` is 1, not on round toys."""
    losses = {name: F.cross_entropy(logits[name], labels[name]) for name in ("kind", "color", "elevation")}
    azimuth = F.cross_entropy(logits.azimuth, labels.azimuth, reduction="none")
    losses["azimuth"] = (azimuth * fronted).sum() / fronted.sum().clamp_min(1.0)
    return losses


def sector_distance(a: Int[Tensor, " B"], b: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
    """Number of azimuth sectors between two, the short way round: 0 to 4."""
    apart = (a - b).abs() % len(AZIMUTH_WORDS)
    return torch.minimum(apart, len(AZIMUTH_WORDS) - apart)
