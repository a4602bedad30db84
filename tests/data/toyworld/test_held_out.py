"""Toys that the prior is not trained on, and pictures of one toy from all around."""

import json

import numpy as np
import pytest
import torch

from maquette.apps.main import main
from maquette.core.errors import UnknownNameError
from maquette.data.pictures import PictureFolderDataModule
from maquette.data.toyworld.album import CAMERAS, around, toy_pictures, write_toy
from maquette.data.toyworld.dataset import KIND_NAMES
from maquette.data.toyworld.held_out import HELD_OUT
from maquette.data.toyworld.mesh import RADIUS, toy_mesh
from maquette.data.toyworld.render import orbit_views, render


def test_held_out_toys_are_not_in_the_training_world():
    assert HELD_OUT and not set(HELD_OUT) & set(KIND_NAMES)


@pytest.mark.parametrize("kind", HELD_OUT)
def test_they_are_toys_like_the_others(kind):
    assert 0.75 < np.linalg.norm(toy_mesh(kind).vertices, axis=-1).max() <= RADIUS + 1e-6
    views = orbit_views([0.0, 180.0], elevation_deg=20.0)
    red, blue = (render(kind, color, views, 32).float() for color in ("red", "blue"))
    toy = (red != 255).any(1)
    assert ((red - blue).abs().amax(1) > 40)[toy].float().mean() > 0.4
    assert (red[0] - red[1]).abs().mean() > 3.0


def test_one_toy_from_all_around(tmp_path):
    table = write_toy(tmp_path, "turtle", "green", count=8, size=16)
    lines = [json.loads(line) for line in table.read_text().splitlines()]
    assert table.name == CAMERAS and all((tmp_path / line["file_name"]).is_file() for line in lines)
    gaps = np.diff(sorted(line["azimuth"] % 360.0 for line in lines))
    assert gaps.min() > 20.0 and gaps.max() < 70.0
    cfg = {"images": str(tmp_path), "prompt": "a <new1>", "image_size": 16}
    read = PictureFolderDataModule(cfg).pictures
    images, captions = toy_pictures("turtle", "green", "a <new1>", size=16)
    assert read.captions == captions and captions[1] == "a <new1>, front right view, high"
    torch.testing.assert_close(read.plain(), images)


def test_the_same_seed_gives_the_same_cameras():
    assert np.array_equal(around(5, 1).azimuth_deg, around(5, 1).azimuth_deg)
    assert not np.array_equal(around(5, 1).azimuth_deg, around(5, 2).azimuth_deg)


def test_the_command(tmp_path, capsys):
    words = ["toyworld", "render", "--toy", "green", "turtle", "--count", "2", "--size", "16"]
    assert main([*words, "--out", str(tmp_path / "album")]) == 0
    assert len(list((tmp_path / "album").glob("*.png"))) == 2
    words[4] = "turtel"
    assert main([*words, "--out", str(tmp_path / "other")]) == 2
    assert "turtle" in capsys.readouterr().err and not (tmp_path / "other").exists()
    with pytest.raises(UnknownNameError):
        write_toy(tmp_path / "x", "turtle", "gren")
