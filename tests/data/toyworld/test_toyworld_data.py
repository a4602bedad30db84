"""Rendered pictures as training data, and as a folder."""

import json

import pytest
import torch

from maquette.core.errors import ConfigError
from maquette.core.random import RandomStreams
from maquette.data.loading import BatchSource, Place
from maquette.data.toyworld.album import write_album
from maquette.data.toyworld.augment import degrade
from maquette.data.toyworld.datamodule import ToySplit, ToyStream, ToyworldDataModule
from maquette.data.toyworld.dataset import COLOR_NAMES, KIND_NAMES, TOYS, cached_pictures
from maquette.data.toyworld.kinds import FRONTED
from maquette.io.images import read_image


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toyworld")
    cfg = {
        "cache_dir": str(folder),
        "views_per_toy": 1,
        "eval_views_per_toy": 1,
        "image_size": 16,
        "batch_size": 6,
    }
    return ToyworldDataModule(cfg, RandomStreams(3))


def test_every_toy_is_rendered_with_its_labels(module):
    pictures = module.train_split.pictures
    assert len(pictures) == len(TOYS) == len(KIND_NAMES) * len(COLOR_NAMES)
    assert {(int(k), int(c)) for k, c in zip(pictures.kind, pictures.color, strict=True)} == set(TOYS)
    assert pictures.images.shape[1:] == (3, 16, 16)


def test_cache_gives_the_same_pictures(module, tmp_path):
    again = cached_pictures(tmp_path, 1, 2026, 16)
    read = cached_pictures(tmp_path, 1, 2026, 16)
    assert torch.equal(again.images, module.train_split.pictures.images)
    assert torch.equal(again.images, read.images)
    assert not torch.equal(again.images, module.eval_split.pictures.images)


def test_batches_depend_on_seed_and_step_only(module):
    stream = ToyStream(module.train_split, 6, BatchSource(RandomStreams(3), lambda: 5, Place()))
    first = next(iter(stream))
    assert torch.equal(first.picture, stream.batch(5).picture)
    assert not torch.equal(first.picture, stream.batch(6).picture)


def test_two_ranks_see_the_halves_of_one_batch(module):
    whole = ToyStream(module.train_split, 6, BatchSource(RandomStreams(3), lambda: 0, Place())).batch(2)
    halves = [
        ToyStream(module.train_split, 3, BatchSource(RandomStreams(3), lambda: 0, Place(rank, 2))).batch(2)
        for rank in (0, 1)
    ]
    assert torch.equal(whole.picture, torch.cat([half.picture for half in halves]))


def test_toys_with_a_front_are_drawn_as_often_as_asked(module):
    pictures = module.train_split.pictures
    share = (torch.arange(10_000) + 0.5) / 10_000
    fronted = torch.tensor([KIND_NAMES[kind] in FRONTED for kind in pictures.kind.tolist()])
    plain = fronted[ToySplit(pictures).rows_at(share)].float().mean().item()
    double = fronted[ToySplit(pictures, front_weight=2.0).rows_at(share)].float().mean().item()
    assert plain == pytest.approx(len(FRONTED) / len(KIND_NAMES), abs=0.01)
    assert double == pytest.approx(2 * len(FRONTED) / (len(KIND_NAMES) + len(FRONTED)), abs=0.01)


def test_captions_and_labels_agree(module):
    batch = next(iter(module.val_dataloader()))
    for kind, color, text in zip(batch.kind, batch.color, batch.captions, strict=True):
        assert f"{COLOR_NAMES[color]} {KIND_NAMES[kind]}, " in text


def test_augmentation_of_a_picture_does_not_depend_on_its_batch():
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    rng = RandomStreams(0).at(1, [4, 5, 6])
    together = degrade(images, rng)
    alone = torch.cat([degrade(images[i : i + 1], rng.rows([i])) for i in range(3)])
    torch.testing.assert_close(together, alone)
    assert together.min() >= 0
    assert together.max() <= 1


def test_a_size_that_is_no_multiple_of_16_is_refused():
    with pytest.raises(ConfigError, match="image_size"):
        ToyworldDataModule({"image_size": 40})


def test_album(tmp_path):
    lines = [
        json.loads(line) for line in write_album(tmp_path / "a", 3, seed=1, size=16).read_text().splitlines()
    ]
    assert len(lines) == 3
    for line in lines:
        assert line["caption"].startswith(("a ", "an "))
        assert f"{line['color']} {line['kind']}," in line["caption"]
        assert read_image(tmp_path / "a" / line["file"]).shape == (16, 16, 3)
    more = write_album(tmp_path / "b", 4, seed=1, size=16).read_text().splitlines()
    assert [json.loads(line) for line in more[:3]] == lines
