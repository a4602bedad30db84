import torch

from maquette.ops.orbit import orbit_cameras


def test_every_camera_stands_where_it_should_and_sees_the_origin_upright_in_its_middle():
    elevation, azimuth = torch.tensor([0.0, 30.0, -60.0]), torch.tensor([0.0, 90.0, 200.0])
    distance, fovy = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([40.0, 60.0, 80.0])
    batch = orbit_cameras(elevation, azimuth, distance, fovy, 4, 6, index=torch.arange(3))
    level, around = elevation.deg2rad(), azimuth.deg2rad()
    towards = torch.stack([level.cos() * around.cos(), level.cos() * around.sin(), level.sin()], dim=-1)
    torch.testing.assert_close(batch.camera_positions, distance[:, None] * towards)
    torch.testing.assert_close(batch.light_positions, batch.camera_positions)
    origin, above = (batch.mvp_mtx @ torch.tensor([0.0, 0.0, z, 1.0]) for z in (0.0, 0.1))
    torch.testing.assert_close(origin[:, :2], torch.zeros(3, 2), atol=1e-6, rtol=0)
    torch.testing.assert_close(above[:, 0], torch.zeros(3), atol=1e-6, rtol=0)
    assert (batch.c2w[:, 2, 1] > 0).all()
    torch.testing.assert_close(batch.fovy, fovy.deg2rad())
    assert batch.rays_d.shape == (3, 4, 6, 3) and batch.index.tolist() == [0, 1, 2]
