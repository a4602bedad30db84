"""maquette compare and mesh-from-points, as a user types them."""

import json

import numpy as np
import pytest
import torch
import trimesh

from maquette.apps.main import main
from maquette.core.errors import MissingBackendError
from maquette.core.optional import require
from maquette.io.mesh import is_watertight, read_mesh, write_mesh
from maquette.io.ply import write_points
from maquette.kernels.render_mesh import orbit_batch, render_mesh
from maquette.ops.mesh import Mesh, volume
from maquette.ops.point_cloud import PointCloud


@pytest.fixture
def ball(tmp_path):
    solid = trimesh.creation.icosphere(3)
    mesh = Mesh(torch.tensor(solid.vertices, dtype=torch.float32), torch.tensor(np.array(solid.faces)))
    write_mesh(mesh, tmp_path / "ball.glb")
    write_mesh(mesh, tmp_path / "same.stl", units="mm", up="y")
    write_mesh(mesh.replace(vertices=mesh.vertices * 1.1), tmp_path / "larger.obj")
    return mesh


def test_formats_and_frames_make_no_difference(ball, tmp_path, capsys):
    a, b = str(tmp_path / "ball.glb"), str(tmp_path / "same.stl")
    assert main(["compare", a, b, "--in-units", "mm", "--in-up", "y", "--points", "3000", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["chamfer"] == pytest.approx(0, abs=1e-6) and found["f_score"] == 1
    assert found["volumes"][0] == pytest.approx(found["volumes"][1], rel=1e-5)


def test_the_table(ball, tmp_path, capsys):
    a, b = str(tmp_path / "ball.glb"), str(tmp_path / "larger.obj")
    assert main(["compare", a, b, "--points", "3000", "--tolerance", "0.2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert float(lines[0].split()[1]) == pytest.approx(0.11, rel=0.1)
    assert lines[1].startswith("F-score   1.0000  within 0.2") and "2.2 x 2.2 x 2.2" in lines[3]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["compare", "ball.glb"], "B"),
        (["compare", "ball.glb", "none.glb"], "not found"),
        (["compare", "ball.glb", "ball.glb", "--in-up", "y"], "unlike ball.glb"),
        (["compare", "ball.glb", "ball.glb", "--points", "0"], "no whole number"),
        (["compare", "ball.glb", "ball.glb", "--tolerance", "nan"], "no length above zero"),
        (["mesh-from-points", "ball.glb", "a.glb"], "not a cloud of points"),
        (["mesh-from-points", "few.ply", "a.glb"], "too few"),
        (["mesh-from-points", "few.ply", "a.png"], "end it in .glb"),
        (["mesh-from-points", "few.ply", "ball.glb"], "--overwrite"),
        (["mesh-from-points", "few.ply", "a.glb", "--method", "alpha"], "poisson"),
        (["mesh-from-points", "few.ply", "a.glb", "--depth", "99"], "from 3 to 12"),
    ],
)
def test_mistakes_leave_nothing(ball, tmp_path, monkeypatch, capsys, arguments, text):
    monkeypatch.chdir(tmp_path)
    write_points(PointCloud(torch.eye(3)), tmp_path / "few.ply")
    before = sorted(tmp_path.iterdir())
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert text in error and "Traceback" not in error and len(error.splitlines()) <= 12
    assert sorted(tmp_path.iterdir()) == before


def reason_against_open3d() -> str:
    try:
        require("open3d", "points")
    except MissingBackendError as err:
        return f"open3d cannot be imported: {err.__cause__}"
    return ""


@pytest.mark.skipif(bool(reason_against_open3d()), reason=reason_against_open3d())
def test_a_scan_becomes_a_closed_mesh(ball, tmp_path, capsys):
    """Depth pictures from six sides, put together to a cloud without normals, with a little noise."""
    long = ball.replace(vertices=ball.vertices * torch.tensor([1.0, 0.7, 1.2]))
    clouds = []
    for elevation in (-35.0, 35.0):
        batch = orbit_batch(long, torch.tensor([0.0, 120.0, 240.0]), 40, elevation)
        depth = render_mesh(long, batch, supersample=1)["depth"]
        seen = batch.rays_o + depth * torch.nn.functional.normalize(batch.rays_d, dim=-1)
        clouds.append(seen[depth[..., 0] > 0])
    points = torch.cat(clouds)
    points = points + 0.002 * torch.randn(points.shape, generator=torch.Generator().manual_seed(0))
    write_points(PointCloud(points, torch.full_like(points, 0.5)), tmp_path / "scan.ply")
    assert (
        main(["mesh-from-points", str(tmp_path / "scan.ply"), str(tmp_path / "a.stl"), "--depth", "5"]) == 0
    )
    assert "1 pieces, closed" in capsys.readouterr().out
    mesh = read_mesh(tmp_path / "a.stl")
    assert is_watertight(mesh) and float(volume(mesh)) == pytest.approx(float(volume(long)), rel=0.05)


def test_the_doctor_names_what_open3d_lacks(monkeypatch):
    from maquette.apps.doctor import _missing
    from maquette.io import reconstruct

    monkeypatch.setattr(reconstruct, "missing_libraries", lambda: {"libGL.so.1": "libgl1"})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert _missing()["libraries of open3d"] == "apt-get install libgl1"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "libraries of open3d" not in _missing()
    assert _missing()["open3d"].startswith("pip install 'maquette[points]'")
