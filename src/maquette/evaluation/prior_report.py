"""How well a text-to-image prior obeys toyworld captions, counted by the classifier."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from maquette.core.view_words import azimuth_index, elevation_index
from maquette.data.toyworld.captions import caption
from maquette.data.toyworld.dataset import COLOR_NAMES, KIND_NAMES
from maquette.data.toyworld.kinds import FRONTED
from maquette.data.toyworld.render import sample_views
from maquette.diffusion.embedded import Pipeline
from maquette.diffusion.load import load_pipeline
from maquette.diffusion.sampling import sample_images
from maquette.evaluation.classifier import ToyClassifier, load_classifier
from maquette.models.networks.toy_cnn import ToyLabels, sector_distance


@dataclass(frozen=True)
class PriorReport:
    """Shares of pictures that the classifier reads as their caption says."""

    samples: int
    """Number of pictures."""
    kind: float
    """Right kind."""
    color: float
    """Right colour."""
    elevation: float
    """Right elevation band."""
    azimuth: float
    """Azimuth at most one sector of 45 degrees off, among toys with a front."""
    azimuth_exact: float
    """Azimuth in the very sector, among toys with a front."""

    def shares(self) -> dict[str, float]:
        """The shares by name."""
        return {name: value for name, value in asdict(self).items() if name != "samples"}


@dataclass(frozen=True)
class Questions:
    """Captions with the labels that a right picture has, and the views they were made from."""

    captions: list[str]
    labels: ToyLabels
    azimuth_deg: list[float]
    elevation_deg: list[float]


def report_prior(
    prior: str | Pipeline,
    samples: int = 200,
    seed: int = 0,
    steps: int = 25,
    guidance_scale: float = 3.0,
    classifier: ToyClassifier | None = None,
) -> PriorReport:
    """Sample random captions from ``prior`` (a name or a pipeline) and count what is right."""
    pipeline = load_pipeline(prior) if isinstance(prior, str) else prior
    asked = random_questions(samples, seed)
    pictures = sample_images(pipeline, asked.captions, seed, steps, guidance_scale)
    return count_right(classifier or load_classifier(), pictures, asked.labels)


def random_questions(count: int, seed: int) -> Questions:
    """Captions of random toys from random sides, each kind equally often."""
    rng = np.random.default_rng((seed, 0))
    kinds = rng.permutation(np.arange(count) % len(KIND_NAMES))
    colors = rng.integers(0, len(COLOR_NAMES), count)
    views = sample_views(count, rng)
    azimuth, elevation = views.azimuth_deg.tolist(), views.elevation_deg.tolist()
    captions = [
        caption(KIND_NAMES[kind], COLOR_NAMES[color], *angles)
        for kind, color, *angles in zip(kinds, colors, azimuth, elevation, strict=True)
    ]
    labels = ToyLabels(
        kind=torch.from_numpy(kinds),
        color=torch.from_numpy(colors),
        azimuth=torch.tensor([azimuth_index(angle) for angle in azimuth]),
        elevation=torch.tensor([elevation_index(angle) for angle in elevation]),
    )
    return Questions(captions, labels, azimuth, elevation)


def count_right(
    classifier: ToyClassifier, pictures: Float[Tensor, "B 3 H W"], labels: ToyLabels
) -> PriorReport:
    """Compare what the classifier reads with the labels."""
    found = classifier.labels(pictures)
    fronted = torch.tensor([KIND_NAMES[kind] in FRONTED for kind in labels.kind.tolist()])
    apart = sector_distance(found.azimuth, labels.azimuth)[fronted]
    return PriorReport(
        samples=len(pictures),
        kind=_share(found.kind == labels.kind),
        color=_share(found.color == labels.color),
        elevation=_share(found.elevation == labels.elevation),
        azimuth=_share(apart <= 1),
        azimuth_exact=_share(apart == 0),
    )


def _share(right: Tensor) -> float:
    return float(right.float().mean())
