"""maquette render, as a user types it: sizes, depths that are known, splats and points."""

import numpy as np
import pytest
import torch
import trimesh

from maquette.apps.main import main
from maquette.io.data import read_npy
from maquette.io.images import read_image
from maquette.io.mesh import write_mesh
from maquette.io.ply import write_points
from maquette.io.splats import write_splats
from maquette.io.video import read_video
from maquette.ops.gaussians import Gaussians, colors_to_sh
from maquette.ops.mesh import Mesh
from maquette.ops.point_cloud import PointCloud


@pytest.fixture
def ball(tmp_path):
    solid = trimesh.creation.icosphere(3)
    mesh = Mesh(torch.tensor(solid.vertices, dtype=torch.float32), torch.tensor(np.array(solid.faces)))
    red = torch.tensor([1.0, 0.0, 0.0]).expand(mesh.n_vertices, 3)
    return write_mesh(mesh.replace(vertex_colors=red), tmp_path / "ball.glb")[0]


def run(*arguments: object) -> int:
    return main(["render", *map(str, arguments)])


def test_a_picture_and_its_depth(ball, tmp_path):
    out, depth, normal = tmp_path / "a.png", tmp_path / "a.npy", tmp_path / "n.npy"
    options = ["--size", "48x32", "--distance", "4", "--elevation", "0", "--shading", "albedo"]
    assert run(ball, "--out", out, "--depth", depth, "--normal", normal, *options) == 0
    picture, measured, normals = read_image(out), read_npy(depth), read_npy(normal)
    assert picture.shape == (32, 48, 3) and measured.shape == (32, 48) and measured.dtype == np.float32
    assert measured[16, 24] == pytest.approx(3.0, abs=0.02) and measured[0, 0] == 0
    assert picture[16, 24].tolist() == [1, 0, 0] and picture[0, 0].tolist() == [1, 1, 1]
    assert normals[16, 24] == pytest.approx([1, 0, 0], abs=0.1)


def test_views_stand_beside_each_other(ball, tmp_path):
    out, depth = tmp_path / "a.jpg", tmp_path / "d.npy"
    assert (
        run(ball, "--out", out, "--views", 3, "--size", "20x16", "--background", "black", "--depth", depth)
        == 0
    )
    assert read_image(out).shape == (16, 60, 3) and read_npy(depth).shape == (3, 16, 20)
    assert read_image(out)[0, 0].max() < 0.1


def test_narrow_pictures_hold_the_whole(ball, tmp_path):
    for size in ("16x64", "64x16"):
        out = tmp_path / f"{size}.png"
        assert run(ball, "--out", out, "--size", size, "--background", "0,0,1") == 0
        picture = read_image(out)
        rim = torch.cat([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert (rim - torch.tensor([0.0, 0.0, 1.0])).abs().max() < 0.01
        assert (picture[..., 0] > 0.2).sum() > 40


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_a_video_is_one_turn(ball, tmp_path, suffix):
    out = tmp_path / f"a.{suffix}"
    assert run(ball, "--out", out, "--views", 5, "--size", "32") == 0
    assert read_video(out).shape[1:] == (32, 32, 3)


def test_splats(tmp_path):
    """A dense shell of small Gaussians has the depth of the ball that it covers."""
    points = torch.tensor(trimesh.creation.icosphere(3).vertices, dtype=torch.float32)
    n = len(points)
    shell = Gaussians(
        means=points,
        rotations=torch.tensor([1.0, 0, 0, 0]).expand(n, 4),
        scales=torch.full((n, 3), 0.06),
        opacities=torch.full((n,), 0.95),
        sh=colors_to_sh(torch.tensor([0.0, 1.0, 0.0]).expand(n, 3))[:, None],
    )
    path, out, depth = write_splats(shell, tmp_path / "s.ply"), tmp_path / "a.png", tmp_path / "a.npy"
    arguments = ["--size", "33", "--distance", "4", "--elevation", "0", "--normal", tmp_path / "n.png"]
    assert run(path, "--out", out, "--depth", depth, *arguments) == 0
    assert read_image(out)[16, 16].tolist() == pytest.approx([0, 1, 0], abs=0.05)
    assert read_npy(depth)[16, 16] == pytest.approx(3.0, abs=0.08) and read_npy(depth)[0, 0] == 0
    assert read_image(tmp_path / "n.png")[16, 16, 0] > 0.9


def test_points(tmp_path):
    points = torch.tensor(trimesh.creation.icosphere(3).vertices, dtype=torch.float32)
    path = write_points(PointCloud(points, (points + 1) / 2), tmp_path / "p.ply")
    assert run(path, "--out", tmp_path / "a.png", "--size", "33", "--elevation", "0") == 0
    assert read_image(tmp_path / "a.png")[16, 16].tolist() == pytest.approx([1.0, 0.5, 0.5], abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["ball.glb", "--out", "a.bmp"], ".png, .jpg"),
        (["ball.glb", "--out", "a.png", "--size", "0x3"], "no size such as"),
        (["ball.glb", "--out", "a.png", "--size", "99999"], "8192 at most"),
        (["ball.glb", "--out", "a.png", "--background", "mauve"], "is no color"),
        (["ball.glb", "--out", "a.png", "--depth", "a.exr"], "end it in .npy"),
        (["ball.glb", "--out", "a.png", "--normal", "a.png"], "different files"),
        (["ball.glb", "--out", "a.png", "--elevation", "90"], "between -90 and 90"),
        (["ball.glb", "--out", "a.png", "--distance", "-1"], "--distance is above 0"),
        (["ball.glb", "--out", "a.png", "--fov", "180"], "1 to 170"),
        (["ball.glb", "--out", "old.png"], "--overwrite"),
        (["ball.glb", "--out", "a.png", "--in-units", "cm"], "--in-units is for files that do not say"),
        (["ball.glb"], "--out"),
        (["none.glb", "--out", "a.png"], "not found"),
        (["old.png", "--out", "a.png"], "Meshes are read from"),
    ],
)
def test_mistakes_leave_nothing(ball, tmp_path, monkeypatch, capsys, arguments, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.png").write_text("mine")
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert text in error and "Traceback" not in error and len(error.splitlines()) <= 12
    assert sorted(one.name for one in tmp_path.iterdir()) == ["ball.glb", "old.png"]
