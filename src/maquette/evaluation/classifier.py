"""The judge of toyworld pictures: reads kind, colour and view; trained on renders the prior never saw."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.core.config import load_config
from maquette.core.output import MappingOutput
from maquette.core.paths import cache_dir
from maquette.data.toyworld.dataset import COLOR_NAMES, KIND_NAMES
from maquette.io.data import read_safetensors
from maquette.models.networks.toy_cnn import ToyCNN
from maquette.training.run import run

ToyClassifier = ToyCNN
RECIPE = "toy-classifier"
WEIGHTS = "classifier.safetensors"


@dataclass
class ToyProbabilities(MappingOutput):
    """What a classifier makes of B pictures; rows sum to one."""

    kind: Float[Tensor, "B K"]
    """Probability of each kind, in the order of ``KIND_NAMES``."""
    color: Float[Tensor, "B C"]
    """Probability of each colour, in the order of ``COLOR_NAMES``."""
    azimuth: Float[Tensor, "B 8"]
    """Probability of each azimuth sector; means nothing for toys without a front."""
    elevation: Float[Tensor, "B 4"]
    """Probability of each elevation band."""


@torch.no_grad()
def classify(classifier: ToyClassifier, images: Float[Tensor, "B 3 H W"]) -> ToyProbabilities:
    """Probabilities for pictures in [0, 1], 64 x 64."""
    logits = classifier(images)
    return ToyProbabilities(**{name: logits[name].softmax(-1) for name in classifier.heads})


def load_classifier(folder: Path | None = None) -> ToyClassifier:
    """The trained classifier; trained now, in a few minutes, if ``folder`` does not hold it yet.

    Args:
        folder: run folder of the recipe ``toy-classifier``; by default one in the cache of maquette.
    """
    folder = folder or cache_dir("toyworld") / RECIPE
    if not (folder / WEIGHTS).is_file():
        train_classifier(folder)
    classifier = ToyCNN(len(KIND_NAMES), len(COLOR_NAMES))
    classifier.load_state_dict(read_safetensors(folder / WEIGHTS))
    return classifier.eval().requires_grad_(False)


def train_classifier(folder: Path, overrides: tuple[str, ...] = ()) -> Path:
    """Run the recipe ``toy-classifier`` in ``folder``, over what an earlier run left there."""
    run(load_config(RECIPE, (f"run_dir={folder}", *overrides)), "train", overwrite=True)
    return folder / WEIGHTS
