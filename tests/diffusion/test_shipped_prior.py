"""The pipeline inside the package keeps the promises that its documentation makes."""

from itertools import product

import numpy as np
import pytest
import torch
from safetensors import safe_open

from maquette.core.paths import EMBEDDED_PRIOR, assets_dir
from maquette.core.view_words import AZIMUTH_WORDS, ELEVATION_WORDS
from maquette.data.toyworld.kinds import KINDS
from maquette.data.toyworld.palette import PALETTE
from maquette.data.toyworld.render import render, sample_views
from maquette.diffusion.load import load_pipeline
from maquette.diffusion.prior_losses import encode_means

FOLDER = assets_dir("prior")


def count_weights(part: str) -> int:
    (path,) = (FOLDER / part).glob("*.safetensors")
    with safe_open(path, framework="pt") as weights:
        return sum(weights.get_tensor(name).numel() for name in weights.keys())


@pytest.fixture(scope="module")
def pipeline():
    return load_pipeline(EMBEDDED_PRIOR)


def test_it_is_small():
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) <= 12_000_000
    assert count_weights("unet") <= 5_000_000


def test_it_has_a_card_with_measured_figures():
    card = (FOLDER / "README.md").read_text()
    for row in ("kind", "colour", "elevation word", "azimuth within one sector"):
        assert any(line.startswith(f"| {row}") and "%" in line for line in card.splitlines())


def test_it_knows_every_word_of_toyworld(pipeline):
    tokenizer = pipeline.tokenizer
    for kind, color in product(KINDS, PALETTE):
        for azimuth, elevation in zip(AZIMUTH_WORDS, ELEVATION_WORDS * 2, strict=True):
            ids = tokenizer(f"a photo of the {color} {kind}, {azimuth} view, {elevation}").input_ids
            assert tokenizer.unk_token_id not in ids
            assert len(ids) <= tokenizer.model_max_length


def test_it_has_eight_spare_words_and_sks(pipeline):
    ids = pipeline.tokenizer(" ".join([*(f"<new{i}>" for i in range(1, 9)), "sks"])).input_ids[1:-1]
    assert len(set(ids)) == 9
    assert pipeline.tokenizer.unk_token_id not in ids


def test_its_latents_have_unit_variance(pipeline):
    pictures = [
        render(kind, color, sample_views(1, np.random.default_rng(seed)))
        for seed, (kind, color) in enumerate(product(KINDS, list(PALETTE)[::4]))
    ]
    latents = encode_means(pipeline.vae, torch.cat(pictures)) * pipeline.vae.config["scaling_factor"]
    assert latents.std().item() == pytest.approx(1.0, abs=0.1)


def test_it_predicts_velocities_of_16_by_16_latents(pipeline):
    assert pipeline.scheduler.config["prediction_type"] == "v_prediction"
    assert pipeline.unet.config["sample_size"] == 16
