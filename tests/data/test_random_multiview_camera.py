import pytest
import torch

from maquette.core.errors import ConfigError
from maquette.core.random import RandomStreams
from maquette.core.registry import find
from maquette.data.loading import BatchSource, Place
from maquette.data.random_multiview_camera import (
    RandomMultiviewCameraConfig,
    RandomMultiviewCameraDataModule,
    RandomMultiviewCameraStream,
)

STREAMS = RandomStreams(11)
TENSORS = ("c2w", "rays_d", "light_positions", "elevation", "azimuth", "fovy", "camera_distances")


def config(**options):
    return RandomMultiviewCameraConfig(height=4, width=6, n_view=4, **{"batch_size": 12, **options})


def batch(cfg, step=3, place=None):
    return RandomMultiviewCameraStream(cfg, BatchSource(STREAMS, lambda: 0, place or Place())).batch(step)


def of_objects(values, n=4):
    return values.unflatten(0, (-1, n))


@pytest.mark.parametrize("uniform", [True, False])
def test_views_of_an_object_share_all_but_evenly_spaced_azimuths(uniform):
    found = batch(config(batch_uniform_azimuth=uniform))
    for name in ("elevation", "camera_distances", "fovy"):
        values = of_objects(found[name])
        torch.testing.assert_close(values, values[:, :1].expand_as(values), rtol=0, atol=0)
        assert len(values[:, 0].unique()) == 3
    azimuth = of_objects(found.azimuth)
    torch.testing.assert_close(azimuth.diff(dim=1), torch.full((3, 3), 90.0))
    assert azimuth.min() >= -180 and azimuth.max() <= 180 and len(azimuth[:, 0].unique()) == 3


def test_unperturbed_cameras_of_an_object_are_turns_of_one():
    found = batch(config(camera_perturb=0.0, center_perturb=0.0, up_perturb=0.0))
    quarter = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    poses = of_objects(found.c2w[:, :3])
    torch.testing.assert_close(quarter @ poses[:, :-1], poses[:, 1:], rtol=1e-5, atol=1e-5)


def test_every_view_has_draws_of_its_own():
    found = batch(config())
    assert found.rng.index == tuple(range(36, 48)) and found.index.tolist() == list(range(36, 48))
    assert len(found.rng.uniform("anything").unique()) == 12


def test_distances_follow_the_field_of_view_and_zooming_does_not_change_them():
    plain = batch(config(relative_radius=False))
    relative = batch(config())
    torch.testing.assert_close(
        relative.camera_distances * torch.tan(relative.fovy / 2), plain.camera_distances
    )
    zoomed = batch(config(zoom_range=(0.5, 0.5)))
    torch.testing.assert_close(zoomed.fovy, relative.fovy / 2)
    torch.testing.assert_close(zoomed.camera_distances, relative.camera_distances)


def test_two_ranks_see_the_objects_of_one():
    whole = batch(config())
    parts = [batch(config(batch_size=4), place=Place(rank, 3)) for rank in range(3)]
    for name in TENSORS:
        torch.testing.assert_close(torch.cat([one[name] for one in parts]), whole[name])


def test_it_loads_and_evaluates_on_a_turntable():
    data = RandomMultiviewCameraDataModule({"n_view": 2, "batch_size": 4, "height": 4, "width": 4}, STREAMS)
    assert len(next(iter(data.train_dataloader())).c2w) == 4
    assert len(data.test_dataloader()) == 120
    assert find("random-multiview-camera-datamodule", "data") is RandomMultiviewCameraDataModule


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"batch_size": 6}, "batch_size"),
        ({"batch_size": [4, 6], "resolution_milestones": [10]}, "batch_size"),
        ({"n_view": 0}, "n_view"),
        ({"zoom_range": (0.0, 1.0)}, "zoom_range"),
        ({"zoom_range": (1.0, 3.0)}, "zoom_range"),
    ],
)
def test_what_cannot_be_is_named(options, key):
    with pytest.raises(ConfigError, match=rf"data\.{key}"):
        RandomMultiviewCameraConfig(**{"n_view": 4, "batch_size": 4, **options})
