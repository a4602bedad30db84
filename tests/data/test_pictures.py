"""A folder of pictures: captions, squares, and batches that depend on nothing but seed, step and place."""

import json

import pytest
import torch

from maquette.core.errors import MissingFileError, UserError
from maquette.core.random import RandomStreams
from maquette.data.loading import BatchSource, Place
from maquette.data.picture_captions import captions_of, view_of_name
from maquette.data.pictures import PictureFolderDataModule, PictureStream, cropped, squared
from maquette.io.images import write_image

PROMPT = "a <new1> mug"


def colored(index, size=16):
    return torch.full((size, size, 3), index / 10)


@pytest.fixture
def folder(tmp_path):
    for index in range(5):
        write_image(tmp_path / f"{index}.png", colored(index))
    return tmp_path


def module(folder, **options):
    cfg = {"images": str(folder), "prompt": PROMPT, "image_size": 16, "batch_size": 2, **options}
    return PictureFolderDataModule(cfg, RandomStreams(3))


def stream(data, place=Place(), first=0):  # noqa: B008 (frozen)
    return PictureStream(data.pictures, data.cfg, BatchSource(data.streams, lambda: first, place))


def test_captions_beside_a_picture_in_the_table_and_of_all(folder):
    (folder / "0.txt").write_text("{} on a table\n")
    rows = [
        {"file_name": "1.png", "text": "{}, seen from above"},
        {"file_name": "2.png", "azimuth": -45.0, "elevation": 40.0},
    ]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert module(folder).pictures.captions == [
        "a <new1> mug on a table",
        "a <new1> mug, seen from above",
        "a <new1> mug, front left view, high",
        PROMPT,
        PROMPT,
    ]


@pytest.mark.parametrize(
    ("stem", "view"),
    [
        ("03_front-left_high", "front left view, high"),
        ("left back", "back left view"),
        ("mug-side", "side view"),
        ("overhead_2", "overhead view"),
        ("front_back", ""),
        ("IMG_2001", ""),
        ("lefty", ""),
    ],
)
def test_views_of_names(stem, view):
    assert view_of_name(stem) == view


def test_view_words_are_read_only_where_that_is_asked_for(tmp_path):
    path = tmp_path / "my_front_high.png"
    assert captions_of([path], PROMPT) == [PROMPT]
    assert captions_of([path], PROMPT, view_words=True) == ["a <new1> mug, front view, high"]


def test_a_broken_table_names_its_line(folder):
    (folder / "metadata.jsonl").write_text('{"file_name": "0.png"}\n{"file": "1.png"}\n')
    with pytest.raises(UserError, match="Line 2"):
        assert module(folder).pictures


def test_folders_without_pictures(tmp_path):
    with pytest.raises(MissingFileError):
        assert module(tmp_path / "absent").pictures
    with pytest.raises(UserError, match="holds no pictures"):
        assert module(tmp_path).pictures


def test_every_picture_comes_once_before_any_comes_twice(folder):
    batches = iter(stream(module(folder, batch_size=5)))
    for _ in range(3):
        values = next(batches).images[:, 0, 0, 0].mul(10).round().sort().values
        assert values.tolist() == [0, 1, 2, 3, 4]


def test_a_batch_depends_on_seed_step_and_place_only(folder):
    data = module(folder, flip=True, min_crop=0.5)
    from_start, resumed = iter(stream(data)), iter(stream(data, first=2))
    for _ in range(2):
        next(from_start)
    assert torch.equal(next(from_start).images, next(resumed).images)
    whole = stream(module(folder, batch_size=4)).batch(1)
    halves = [stream(data, Place(rank, 2)).batch(1) for rank in (0, 1)]
    assert whole.captions == halves[0].captions + halves[1].captions
    assert whole.rng.index == halves[0].rng.index + halves[1].rng.index


def test_pictures_become_squares_with_opacity():
    wide = torch.rand(8, 12, 3)
    assert torch.equal(squared(wide, 8)[:3], wide[:, 2:10].permute(2, 0, 1))
    assert squared(torch.rand(9, 9, 1), 4).shape == (4, 4, 4)
    torch.testing.assert_close(squared(torch.rand(6, 6, 3), 4)[3], torch.ones(4, 4))
    half = torch.cat([torch.ones(8, 8, 3), torch.ones(8, 8, 1)], dim=-1)
    half[:, :4] = 0.0  # black that is not seen
    small = squared(half, 4)
    assert bool((small[0][small[3] > 0.1] > 0.99).all())


def test_transparent_pictures_get_greys_and_opaque_ones_stay(tmp_path):
    picture = torch.zeros(16, 16, 4)
    picture[:8, :, 0], picture[:8, :, 3] = 1.0, 1.0
    write_image(tmp_path / "a.png", picture)
    batch = stream(module(tmp_path)).batch(0)
    assert torch.equal(batch.images[:, 0, :8], torch.ones(2, 8, 16))
    below = batch.images[:, :, 8:]
    assert bool((below == below[:, :1, :1, :1]).all()) and 0.3 <= below.min() <= below.max() <= 1.0
    assert below[0, 0, 0, 0] != below[1, 0, 0, 0]


def test_flips_only_where_they_are_allowed(tmp_path):
    ramp = torch.linspace(0, 1, 16).expand(16, 16)[..., None].expand(-1, -1, 3)
    write_image(tmp_path / "a.png", ramp)
    rises = {
        flip: {
            bool(one[0, 0, -1] > one[0, 0, 0])
            for one in stream(module(tmp_path, flip=flip, batch_size=16)).batch(0).images
        }
        for flip in (False, True)
    }
    assert rises == {False: {True}, True: {True, False}}


def test_crops_keep_the_size_and_at_least_the_share():
    ramp = torch.linspace(0, 1, 32).expand(8, 3, 32, 32)
    parts = cropped(ramp, 0.5, RandomStreams(0).at(0, range(8)))
    spread = parts[..., -1].mean((1, 2)) - parts[..., 0].mean((1, 2))
    assert parts.shape == ramp.shape and bool((spread > 0.45).all()) and spread.std() > 0.02
    assert cropped(ramp, 1.0, RandomStreams(0).at(0, range(8))) is ramp


def test_a_toy_in_place_of_a_folder():
    data = module("toyworld:green turtle", image_size=16)
    assert len(data.pictures) == 8
    assert data.pictures.captions[0] == "a <new1> mug, front view, level"
    with pytest.raises(UserError, match="turtle"):
        assert module("toyworld:green turtl").pictures
