import itertools
import math
import pickle
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from maquette.core.errors import ConfigError
from maquette.core.random import RandomStreams
from maquette.data.loading import BatchSource, Place
from maquette.data.random_camera import (
    RandomCameraConfig,
    RandomCameraDataModule,
    RandomCameraStream,
    progress_at,
    training_cameras,
)

TENSORS = ("c2w", "mvp_mtx", "rays_o", "rays_d", "light_positions", "elevation", "azimuth", "fovy")
STREAMS = RandomStreams(11)


def config(**cfg):
    return RandomCameraConfig(height=4, width=6, **cfg)


def cameras(cfg, samples, step=3, strata=1):
    rng = STREAMS.at(step, samples)
    return training_cameras(cfg, rng, torch.tensor(samples) % strata, strata, step)


def stream(cfg, step=0, place=None):
    return RandomCameraStream(cfg, BatchSource(STREAMS, lambda: step, place or Place()))


def assert_same(one, other):
    for name in TENSORS:
        torch.testing.assert_close(one[name], other[name], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("light", ["dreamfusion", "magic3d"])
def test_three_cameras_are_a_stack_of_single_cameras(light):
    cfg = config(light_sample_strategy=light, batch_uniform_azimuth=False)
    together = cameras(cfg, [0, 1, 2])
    for i in range(3):
        alone = cameras(cfg, [i])
        for name in TENSORS:
            torch.testing.assert_close(together[name][i : i + 1], alone[name], atol=1e-6, rtol=1e-6)


def test_cameras_stay_in_their_ranges_and_fill_them():
    cfg = config(batch_uniform_azimuth=False, camera_perturb=0.0)
    batch = cameras(cfg, list(range(2000)))
    for name, (low, high) in {
        "elevation": cfg.elevation_range,
        "azimuth": cfg.azimuth_range,
        "camera_distances": cfg.camera_distance_range,
    }.items():
        margin = 0.02 * (high - low)
        assert low <= batch[name].min() < low + margin and high - margin < batch[name].max() <= high
    assert batch.fovy.min() > math.radians(40) and batch.fovy.max() < math.radians(70)
    torch.testing.assert_close(batch.camera_positions.norm(dim=-1), batch.camera_distances)
    radius = batch.light_positions.norm(dim=-1)
    assert 0.8 <= radius.min() and radius.max() <= 1.5


def test_azimuth_of_a_batch_is_stratified():
    batch = stream(config(batch_size=8)).batch(step=5)
    assert ((batch.azimuth + 180) // 45).tolist() == list(range(8))


def test_magic3d_light_is_in_a_cone_around_the_camera():
    batch = cameras(config(light_sample_strategy="magic3d"), list(range(500)), strata=500)
    cosine = torch.nn.functional.cosine_similarity(batch.light_positions, batch.camera_positions)
    assert cosine.min() > math.cos(math.radians(60.1)) and cosine.max() > 0.99


def test_cameras_look_at_the_origin_up_to_the_perturbation():
    batch = cameras(config(camera_perturb=0.0, center_perturb=0.0), list(range(50)))
    forward = -batch.c2w[:, :3, 2]
    torch.testing.assert_close(forward, -batch.camera_positions / batch.camera_distances[:, None])


def test_two_ranks_see_the_halves_of_one_batch():
    whole = stream(config(batch_size=4)).batch(step=9)
    halves = [stream(config(batch_size=2), place=Place(rank, 2)).batch(step=9) for rank in (0, 1)]
    for name in TENSORS:
        torch.testing.assert_close(torch.cat([half[name] for half in halves]), whole[name])


def test_accumulated_batches_see_the_parts_of_one_batch():
    whole = stream(config(batch_size=4)).batch(step=2)
    parts = list(itertools.islice(iter(stream(config(batch_size=2), step=2, place=Place(accumulate=2))), 3))
    assert [part.step for part in parts] == [2, 2, 3]
    for name in TENSORS:
        torch.testing.assert_close(torch.cat([part[name] for part in parts[:2]]), whole[name])


def test_a_resumed_stream_goes_on_where_it_was():
    there = list(itertools.islice(iter(stream(config(batch_size=2))), 6))
    resumed = next(iter(stream(config(batch_size=2), step=5)))
    assert resumed.step == 5
    assert_same(resumed, there[5])


def test_seeds_differ():
    cfg = config()
    other = RandomCameraStream(cfg, BatchSource(RandomStreams(12), lambda: 0, Place())).batch(0)
    assert not torch.equal(other.c2w, stream(cfg).batch(0).c2w)


def test_sizes_change_at_their_milestones_for_the_very_step():
    cfg = RandomCameraConfig(height=[4, 8], width=[4, 8], batch_size=[3, 1], resolution_milestones=[10])
    before, after = (stream(cfg).batch(step) for step in (9, 10))
    assert before.rays_d.shape == (3, 4, 4, 3) and after.rays_d.shape == (1, 8, 8, 3)


def test_progressive_ranges_open():
    assert progress_at(0, until=0) == 1.0
    assert 0 < progress_at(0, until=100) < 0.02
    assert progress_at(100, until=100) == progress_at(10_000, until=100) == 1.0
    cfg = config(progressive_until=100, batch_uniform_azimuth=False)
    early = cameras(cfg, list(range(200)), step=9)
    assert early.azimuth.abs().max() <= 180 * 10 / 101
    assert early.elevation.min() >= 15 - 25 * 10 / 101 and early.elevation.max() <= 15 + 75 * 10 / 101


def test_validation_goes_around_and_test_closes_the_circle():
    module = RandomCameraDataModule({"eval_height": 2, "eval_width": 2, "n_val_views": 4, "n_test_views": 5})
    val = list(module.val_dataloader())
    assert [batch.azimuth.item() for batch in val] == [0.0, 90.0, 180.0, 270.0]
    test = list(module.test_dataloader())
    assert [batch.index.item() for batch in test] == [0, 1, 2, 3, 4]
    torch.testing.assert_close(test[0].c2w, test[4].c2w, atol=1e-5, rtol=0)
    torch.testing.assert_close(val[1].c2w, test[1].c2w)
    assert val[0].rng is None and torch.equal(val[0].light_positions, val[0].camera_positions)
    x, _, z = val[0].camera_positions[0].tolist()
    assert (x, z) == pytest.approx((1.5 * math.cos(math.radians(15)), 1.5 * math.sin(math.radians(15))))


def test_loaders_follow_the_trainer():
    module = RandomCameraDataModule({"height": 2, "width": 2})
    system = SimpleNamespace(streams=STREAMS)
    trainer = SimpleNamespace(
        lightning_module=system, global_step=40, global_rank=0, world_size=1, accumulate_grad_batches=1
    )
    module.trainer = trainer
    loader = module.train_dataloader()
    assert next(iter(loader)).step == 40
    trainer.global_step = 60
    again = next(iter(loader))
    assert again.step == 60 and again.rng.seed == 11, "an epoch that starts later asks again"
    source = BatchSource(STREAMS, module.global_step, Place())
    copy = pickle.loads(pickle.dumps(RandomCameraStream(RandomCameraConfig(), source)))
    assert copy.source.first_step() == 60, "a worker takes the step along"


def test_a_batch_reads_like_a_mapping_and_moves():
    batch = cameras(config(), [0])
    assert batch["height"] == 4 and {**batch}["width"] == 6 and "index" in batch
    moved = batch.to("cpu")
    assert moved.rng is batch.rng and torch.equal(moved.c2w, batch.c2w)


@pytest.mark.parametrize(
    ("cfg", "key"),
    [
        ({"elevation_range": (50, 10)}, "elevation_range"),
        ({"light_sample_strategy": "sun"}, "light_sample_strategy"),
        ({"height": [4, 8]}, "height"),
        ({"batch_size": 0}, "batch_size"),
        ({"width": 64.0}, "width"),
        ({"n_val_views": 0}, "n_val_views"),
        ({"eval_batch_size": 0}, "eval_batch_size"),
        ({"fovy_range": (0.5, 200.0)}, "fovy_range"),
        ({"eval_fovy_deg": 0.0}, "eval_fovy_deg"),
    ],
)
def test_wrong_values_are_refused(cfg, key):
    with pytest.raises(ConfigError, match=key):
        RandomCameraDataModule(cfg)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_trainer_that_accumulates_gets_the_parts_of_each_steps_batch(accumulate):
    """Three steps of two views: as one batch each, or accumulated from batches of one view."""

    class Watcher(LightningModule):
        def __init__(self):
            super().__init__()
            self.streams, self.weight, self.seen = STREAMS, torch.nn.Parameter(torch.ones(())), []

        def training_step(self, batch, batch_idx):
            self.seen.append((self.global_step, batch))
            return self.weight.square()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    watcher = Watcher()
    trainer = Trainer(
        max_steps=3,
        accumulate_grad_batches=accumulate,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = RandomCameraDataModule({"height": 2, "width": 2, "batch_size": 2 // accumulate})
    trainer.fit(watcher, datamodule=module)
    steps = [(step, batch.step) for step, batch in watcher.seen]
    assert steps == [(step, step) for step in range(3) for _ in range(accumulate)]
    expected = [stream(RandomCameraConfig(height=2, width=2, batch_size=2)).batch(step) for step in range(3)]
    for name in TENSORS:
        seen = torch.cat([batch[name] for _, batch in watcher.seen])
        torch.testing.assert_close(seen, torch.cat([batch[name] for batch in expected]))
