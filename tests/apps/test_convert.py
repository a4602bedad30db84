"""maquette convert, as a user types it."""

import importlib.util
import json

import numpy as np
import pytest
import torch
import trimesh

from maquette.apps.main import main
from maquette.io.assets import read_asset
from maquette.io.mesh import is_watertight, read_mesh, write_mesh
from maquette.io.ply import ply_kind, read_points
from maquette.io.splats import read_splats, write_splats
from maquette.ops.gaussians import Gaussians, colors_to_sh
from maquette.ops.mesh import Mesh, bounding_box, triangles

HAS_USD = importlib.util.find_spec("pxr") is not None
BESIDE = [("a.mtl", "a.obj"), ("a_kd.jpg", "a.obj"), ("a_normal.png", "a.usda")]
SUFFIXES = [".glb", ".obj", ".ply", ".stl", *([".usda", ".usdz"] if HAS_USD else [])]


@pytest.fixture
def ball(tmp_path):
    """A textured ball in a GLB; its left half is black, its right half is red."""
    solid = trimesh.creation.icosphere(2)
    vertices = torch.tensor(solid.vertices, dtype=torch.float32)
    faces = torch.tensor(np.array(solid.faces))
    uvs = torch.stack([(vertices[:, 1] + 1) / 2, (vertices[:, 2] + 1) / 2], dim=1)
    picture = torch.zeros(32, 32, 3)
    picture[:, 16:, 0] = 1.0
    mesh = Mesh(vertices, faces, uvs=uvs, uv_faces=faces.clone(), texture={"base_color": picture})
    return write_mesh(mesh, tmp_path / "ball.glb")[0]


def run(*arguments: object) -> int:
    return main(["convert", *map(str, arguments)])


@pytest.mark.parametrize("first", SUFFIXES)
def test_there_and_back_through_every_format(ball, tmp_path, first, capsys):
    there, back = tmp_path / f"there{first}", tmp_path / "back.glb"
    assert run(ball, there) == 0 and run(there, back) == 0
    assert "320 faces, 1 pieces, closed" in capsys.readouterr().out
    torch.testing.assert_close(triangles(read_mesh(back)), triangles(read_mesh(ball)), atol=1e-6, rtol=0)


def test_axes_and_units(ball, tmp_path):
    assert run(ball, tmp_path / "a.obj", "--up", "y", "--units", "cm") == 0
    raw = trimesh.load(tmp_path / "a.obj", force="mesh")
    assert np.abs(raw.vertices).max() == pytest.approx(100)
    assert run(tmp_path / "a.obj", tmp_path / "b.glb", "--in-up", "y", "--in-units", "cm") == 0
    torch.testing.assert_close(
        triangles(read_mesh(tmp_path / "b.glb")), triangles(read_mesh(ball)), atol=1e-5, rtol=0
    )


def test_fewer_faces_keep_the_picture(ball, tmp_path):
    out = tmp_path / "small.glb"
    assert run(ball, out, "--decimate", 100, "--texture-size", 64, "--texture-format", "jpg", "--report") == 0
    mesh = read_mesh(out)
    assert mesh.n_faces <= 102 and mesh.texture["base_color"].shape == (64, 64, 3)
    shown = read_asset(out)
    corner = shown.uvs[shown.uv_faces].mean(dim=1)
    texel = (torch.stack([1 - corner[:, 1], corner[:, 0]], 1) * 64).long().clamp(0, 63)
    red = shown.texture["base_color"][texel[:, 0], texel[:, 1], 0]
    side = triangles(shown).mean(dim=1)[:, 1]
    assert red[side > 0.3].min() > 0.8 and red[side < -0.3].max() < 0.2
    report = json.loads((tmp_path / "small.report.json").read_text())
    assert (
        report["closed"] and report["uv_overlap"] == 0 and report["textures"] == {"base_color": [64, 64, 3]}
    )


def test_fewer_faces_keep_the_colours_of_vertices(ball, tmp_path):
    assert run(ball, tmp_path / "a.ply") == 0
    assert run(tmp_path / "a.ply", tmp_path / "b.ply", "--decimate", 100) == 0
    mesh = read_mesh(tmp_path / "b.ply")
    assert mesh.n_faces <= 102
    assert mesh.vertex_colors[mesh.vertices[:, 1] > 0.3, 0].min() > 0.5


def test_an_open_mesh_is_repaired_when_asked(ball, tmp_path, capsys):
    mesh = read_mesh(ball)
    write_mesh(Mesh(mesh.vertices, mesh.faces[3:]), tmp_path / "open.ply")
    assert run(tmp_path / "open.ply", tmp_path / "a.stl") == 2
    error = capsys.readouterr().err
    assert "this surface is open" in error and "--repair" in error and not (tmp_path / "a.stl").exists()
    assert run(tmp_path / "open.ply", tmp_path / "a.stl", "--repair") == 0
    assert "filled holes" in capsys.readouterr().out and is_watertight(read_mesh(tmp_path / "a.stl"))


def test_points_of_a_mesh(ball, tmp_path):
    assert run(ball, tmp_path / "a.ply", "--points", 500) == 0
    cloud = read_points(tmp_path / "a.ply")
    assert cloud.n_points == 500 and cloud.normals is not None
    assert ((cloud.colors[:, 0] > 0.5) == (cloud.points[:, 1] > 0)).float().mean() > 0.95
    assert run(tmp_path / "a.ply", tmp_path / "b.ply", "--up", "y") == 0
    assert run(tmp_path / "b.ply", tmp_path / "c.ply", "--in-up", "y", "--points", 100) == 0
    torch.testing.assert_close(read_points(tmp_path / "c.ply").points, cloud.points[::5])


def test_splats_there_and_back(ball, tmp_path):
    splats, mesh = tmp_path / "a.ply", tmp_path / "b.glb"
    assert run(ball, splats, "--splats", 600) == 0 and ply_kind(splats) == "splats"
    assert run(splats, tmp_path / "again.ply") == 0
    assert torch.equal(read_splats(tmp_path / "again.ply").means, read_splats(splats).means)
    assert run(splats, tmp_path / "points.ply", "--points", 50) == 0
    assert read_points(tmp_path / "points.ply").n_points == 50
    assert run(splats, mesh, "--resolution", 32) == 0
    surface = read_mesh(mesh)
    assert is_watertight(surface)
    assert bounding_box(surface).abs().flatten().tolist() == pytest.approx([1.0] * 6, abs=0.25)
    assert surface.vertex_colors[surface.vertices[:, 1] > 0.5, 0].min() > 0.6


def test_a_mesh_of_splats_has_their_colors(tmp_path):
    points = torch.tensor(trimesh.creation.icosphere(2).vertices, dtype=torch.float32)
    color = torch.tensor([0.2, 0.5, 0.75])
    write_splats(
        Gaussians(
            means=points,
            rotations=torch.tensor([1.0, 0, 0, 0]).expand(len(points), 4),
            scales=torch.full((len(points), 3), 0.15),
            opacities=torch.full((len(points),), 0.9),
            sh=colors_to_sh(color).expand(len(points), 1, 3),
        ),
        tmp_path / "a.ply",
    )
    assert run(tmp_path / "a.ply", tmp_path / "b.ply", "--as", "mesh", "--resolution", 16) == 0
    found = read_mesh(tmp_path / "b.ply").vertex_colors
    torch.testing.assert_close(found, color.expand_as(found), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["ball.glb", "a.fbx"], ".glb, .obj, .ply"),
        (["ball.glb", "ball.glb"], "--overwrite"),
        (["ball.glb", "folder"], "cannot be no suffix"),
        (["ball.glb", "a.glb", "--up", "z"], "by definition"),
        (["ball.glb", "a.obj", "--units", "parsec"], "m, dm, cm, mm"),
        (["ball.glb", "a.obj", "--up", "x"], "invalid choice"),
        (["ball.glb", "a.glb", "--decimate", "0"], "no whole number above zero"),
        (["ball.glb", "a.glb", "--points", "9"], "Points are written as .ply"),
        (["ball.glb", "a.ply", "--points", "9", "--repair"], "--repair is for meshes"),
        (["ball.glb", "a.obj", "--unlit"], "--unlit is for .glb"),
        (["ball.glb", "a.ply", "--texture-size", "9"], "--texture-size is for a mesh that came with"),
        (["ball.glb", "a.stl", "--texture-format", "jpg"], "--texture-format is for a mesh"),
        (["bare.glb", "a.glb", "--texture-size", "9"], "--texture-size is for a mesh that came with"),
        (["bare.glb", "a.obj", "--texture-format", "png"], "--texture-format is for a mesh that came"),
        (["ball.glb", "a.ply", "--resolution", "9"], "--resolution is for a mesh that is made of splats"),
        (["ball.glb", "a.ply", "--seed", "0"], "--seed is for points that are drawn"),
        (["ball.glb", "a.ply", "--as", "mesh", "--points", "9"], "--points is for a .ply of points"),
        (["ball.glb", "a.ply", "--points", "9", "--splats", "9"], "--splats is for splats"),
        (["points.ply", "a.ply", "--seed", "3"], "here: points (.ply) to points (.ply)"),
        (["ball.glb", "a.obj", "--in-up", "y"], "--in-up is for files that do not say"),
        (["ball.glb", "a.obj", "--in-units", "cm"], "unlike ball.glb"),
        (["none.glb", "a.glb"], "not found"),
        (["folder", "a.glb"], "is a folder"),
        (["cut.glb", "a.glb"], "ends early"),
        (["sheet.obj", "a.glb", "--repair"], "encloses nothing"),
        (["points.ply", "a.glb"], "maquette mesh-from-points"),
        (["ball.glb"], "OUT"),
    ],
)
def test_mistakes_leave_nothing(ball, tmp_path, monkeypatch, capsys, arguments, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    trimesh.creation.icosphere(1).export(tmp_path / "bare.glb")
    (tmp_path / "cut.glb").write_bytes(ball.read_bytes()[:-100])
    (tmp_path / "sheet.obj").write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1 2 3\nf 1 3 4\n")
    trimesh.PointCloud(np.eye(3)).export(tmp_path / "points.ply")
    before = sorted(tmp_path.rglob("*"))
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert text in error and "Traceback" not in error and len(error.splitlines()) <= 12
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("name", "out"), BESIDE)
def test_files_beside_are_not_replaced_either(ball, tmp_path, capsys, name, out):
    (tmp_path / name).write_text("mine")
    assert run(ball, tmp_path / out) == 2
    assert f"{name} is there already" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine" and not (tmp_path / out).exists()


def test_a_report_is_not_replaced_either(ball, tmp_path, capsys):
    (tmp_path / "a.report.json").write_text("mine")
    assert run(ball, tmp_path / "a.obj", "--report") == 2
    assert "a.report.json is there already" in capsys.readouterr().err
    assert (tmp_path / "a.report.json").read_text() == "mine" and not (tmp_path / "a.obj").exists()
    assert run(ball, tmp_path / "a.obj", "--report", "--overwrite") == 0
    assert json.loads((tmp_path / "a.report.json").read_text())["faces"] == 320


def test_overwrite_replaces(ball, tmp_path):
    out = tmp_path / "a.ply"
    out.write_text("old")
    assert run(ball, out, "--overwrite") == 0 and read_mesh(out).n_faces == 320
