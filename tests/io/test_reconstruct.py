"""Surfaces through points, where open3d is there to find them."""

import importlib

import pytest
import torch
import trimesh

from maquette.core.errors import ConfigError, MaquetteError, MissingBackendError, UserError
from maquette.core.optional import require
from maquette.io import reconstruct
from maquette.io.reconstruct import METHODS, missing_libraries, surface_of_points
from maquette.ops.mesh import Mesh, volume
from maquette.ops.mesh_health import mesh_report
from maquette.ops.point_cloud import PointCloud, sample_surface

BALL = trimesh.creation.icosphere(3)
MESH = Mesh(torch.tensor(BALL.vertices, dtype=torch.float32), torch.tensor(BALL.faces.copy()))


def reason_against_open3d() -> str:
    try:
        require("open3d", "points")
    except MissingBackendError as err:
        return f"open3d cannot be imported: {err.__cause__}"
    return ""


needs_open3d = pytest.mark.skipif(bool(reason_against_open3d()), reason=reason_against_open3d())


@pytest.fixture
def cloud() -> PointCloud:
    found = sample_surface(MESH, 2000)
    return found.replace(colors=(found.points + 1) / 2)


@needs_open3d
@pytest.mark.parametrize("given", [True, False])
def test_poisson_closes_the_ball(cloud, given):
    mesh = surface_of_points(cloud if given else cloud.replace(normals=None), "poisson", depth=5)
    report = mesh_report(mesh)
    assert report.closed and report.components == 1
    assert float(volume(mesh)) == pytest.approx(float(volume(MESH)), rel=0.03)
    assert (mesh.vertex_colors - (mesh.vertices + 1) / 2).abs().mean() < 0.02


@needs_open3d
def test_ball_pivoting_goes_through_the_points(cloud):
    mesh = surface_of_points(cloud, "ball-pivoting")
    mode = "donot_use_mm_for_euclid_dist"
    assert torch.cdist(mesh.vertices, cloud.points, compute_mode=mode).amin(dim=1).max() < 1e-5
    assert mesh_report(mesh).area == pytest.approx(4 * torch.pi, rel=0.15)


@needs_open3d
def test_flat_clouds_do_not_end_the_process(cloud):
    flat = PointCloud(cloud.points * torch.tensor([1.0, 1.0, 0.0]))
    for method in METHODS:
        with pytest.raises(UserError, match="normals"):
            surface_of_points(flat, method)


@needs_open3d
@pytest.mark.parametrize("method", METHODS)
def test_odd_clouds_do_not_end_the_process(method):
    """Tiny, huge, the same places again and again, on a plane with normals: a mesh, or an error of ours."""
    flat = torch.rand(500, 3) * torch.tensor([1.0, 1.0, 0.0])
    up = torch.tensor([0.0, 0.0, 1.0]).expand(500, 3)
    many = torch.rand(300, 3)
    for cloud in (
        PointCloud(flat, normals=up),
        PointCloud(flat * 1e-7, normals=up),
        PointCloud(many * 1e6, normals=torch.nn.functional.normalize(many - 0.5, dim=-1)),
        PointCloud(torch.eye(3).repeat(20, 1)),
        PointCloud(torch.eye(3).repeat(20, 1), normals=torch.zeros(60, 3)),
    ):
        try:
            assert torch.isfinite(surface_of_points(cloud, method, depth=4).vertices).all()
        except MaquetteError as err:
            assert "surface" in str(err) or "normals" in str(err)


def test_what_cannot_be_a_surface_is_refused(cloud):
    with pytest.raises(UserError, match="too few"):
        surface_of_points(cloud[:5])
    with pytest.raises(UserError, match="one line"):
        surface_of_points(PointCloud(cloud.points * torch.tensor([1.0, 0.0, 0.0])))
    with pytest.raises(UserError, match="not finite"):
        surface_of_points(PointCloud(torch.full((30, 3), torch.nan)))
    with pytest.raises(ConfigError, match="poisson, ball-pivoting"):
        surface_of_points(cloud, "alpha")
    with pytest.raises(ConfigError, match="from 3 to 12"):
        surface_of_points(cloud, METHODS[0], depth=20)


def test_a_missing_system_library_is_named_with_its_packages(cloud, monkeypatch):
    """open3d is installed, but the loader does not find what it is linked with."""

    def broken(name: str) -> None:
        raise ImportError("libusb-1.0.so.0: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(importlib, "import_module", broken)

    def absent(name: str) -> None:
        if "usb" in name or "EGL" in name:
            raise OSError(name)

    monkeypatch.setattr(reconstruct, "find_spec", lambda name: object())
    monkeypatch.setattr(reconstruct.ctypes, "CDLL", absent)
    monkeypatch.setattr(reconstruct.sys, "platform", "linux")
    with pytest.raises(UserError, match=r"libusb-1\.0\.so\.0") as err:
        surface_of_points(cloud)
    assert "apt-get install libusb-1.0-0 libegl1" in str(err.value)
    monkeypatch.setattr(reconstruct.sys, "platform", "darwin")
    assert missing_libraries() == {}


def test_an_absent_package_names_the_extra(cloud, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "open3d", None)
    monkeypatch.setattr(reconstruct, "find_spec", lambda name: None)
    with pytest.raises(MissingBackendError, match=r"maquette\[points\]"):
        surface_of_points(cloud)
