"""Points in PLY files, and PLY files that are not what they say."""

import numpy as np
import pytest
import torch
import trimesh

from maquette.core.errors import MissingFileError, RunFailed, UserError
from maquette.io.ply import ply_bytes, ply_kind, read_columns, read_points, write_points
from maquette.ops.point_cloud import PointCloud

HEADER = "ply\nformat ascii 1.0\nelement vertex 2\n{properties}end_header\n"
XYZ = "property float x\nproperty float y\nproperty float z\n"


@pytest.fixture
def cloud() -> PointCloud:
    draw = torch.Generator().manual_seed(0)
    points = torch.randn(50, 3, generator=draw)
    colors = torch.randint(0, 256, (50, 3), generator=draw) / 255
    return PointCloud(points, colors, torch.nn.functional.normalize(points, dim=-1))


def text_file(folder, text: str):
    path = folder / "a.ply"
    path.write_text(text)
    return path


def test_everything_comes_back(cloud, tmp_path):
    path = write_points(cloud, tmp_path / "a.ply", comments=["up: z"])
    again = read_points(path)
    assert torch.equal(again.points, cloud.points)
    torch.testing.assert_close(again.colors, cloud.colors)
    torch.testing.assert_close(again.normals, cloud.normals)
    assert ply_kind(path) == "points" and b"comment up: z" in path.read_bytes()


def test_bare_points_have_neither_colors_nor_normals(cloud, tmp_path):
    again = read_points(write_points(PointCloud(cloud.points), tmp_path / "a.ply"))
    assert again.colors is None and again.normals is None and again.n_points == 50


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
def test_clouds_of_trimesh_are_read(cloud, tmp_path, encoding):
    foreign = trimesh.PointCloud(cloud.points.numpy(), (cloud.colors.numpy() * 255).round().astype("u1"))
    path = tmp_path / "a.ply"
    foreign.export(path, encoding=encoding)
    again = read_points(path)
    torch.testing.assert_close(again.points, cloud.points, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(again.colors, cloud.colors)


def test_big_endian_and_doubles(tmp_path):
    header = "ply\nformat binary_big_endian 1.0\nelement vertex 2\n"
    header += "".join(f"property double {axis}\n" for axis in "xyz") + "end_header\n"
    (tmp_path / "a.ply").write_bytes(header.encode() + np.arange(6, dtype=">f8").tobytes())
    assert read_points(tmp_path / "a.ply").points.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_table_before_the_vertices_is_stepped_over(tmp_path):
    text = f"ply\nformat ascii 1.0\nelement camera 1\nproperty float f\nelement vertex 1\n{XYZ}end_header\n"
    assert read_points(text_file(tmp_path, f"{text}7\n1 2 3\n")).points.tolist() == [[1, 2, 3]]


def test_kinds_are_told_apart(tmp_path):
    box = trimesh.creation.box()
    box.export(tmp_path / "mesh.ply")
    assert ply_kind(tmp_path / "mesh.ply") == "mesh"
    assert read_points(tmp_path / "mesh.ply").n_points == 8
    names = ("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "rot_0")
    (tmp_path / "splats.ply").write_bytes(ply_bytes({name: np.zeros(3, np.float32) for name in names}))
    assert ply_kind(tmp_path / "splats.ply") == "splats"


def test_holes_of_a_scanner_are_left_out(tmp_path):
    path = text_file(tmp_path, HEADER.format(properties=XYZ) + "nan nan nan\n1 2 3\n")
    assert read_points(path).points.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a PLY"),
        ("ply\nformat ascii 1.0\n", "header ends early"),
        ("ply\nend_header\n", "cannot be understood"),
        ("ply\nformat ascii 1.0\nproperty float x\nend_header\n", "cannot be understood"),
        ("ply\nformat ascii 1.0\nelement vertex many\nend_header\n", "cannot be understood"),
        ("ply\nformat ascii 1.0\nelement vertex 2\nproperty quad x\nend_header\n", "cannot be understood"),
        ("ply\nformat ascii 1.0\nend_header\n", "no table 'vertex'"),
        (HEADER.format(properties="property float x\n") + "1\n2\n", "lack y, z"),
        (HEADER.format(properties="") + "\n\n", "lack x, y, z"),
        (HEADER.format(properties=XYZ) + "1 2 3\n", "ends early"),
        (HEADER.format(properties=XYZ) + "1 2 3\n4 5\n", "ends early"),
        (HEADER.format(properties=XYZ) + "1 2 3\n4 five 6\n", "where a number should be"),
        (HEADER.format(properties=XYZ) + "nan 0 0\nnan 0 0\n", "no points"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read_points(text_file(tmp_path, text))


def test_every_truncation_is_seen(cloud, tmp_path):
    data = write_points(cloud, tmp_path / "a.ply").read_bytes()
    for length in np.linspace(0, len(data) - 1, 40).astype(int):
        (tmp_path / "cut.ply").write_bytes(data[:length])
        with pytest.raises(UserError):
            read_points(tmp_path / "cut.ply")


def test_nothing_and_nan_are_not_written(tmp_path):
    for points in (torch.zeros(0, 3), torch.full((2, 3), torch.nan)):
        with pytest.raises(RunFailed):
            write_points(PointCloud(points), tmp_path / "a.ply")
    with pytest.raises(MissingFileError):
        read_columns(tmp_path / "a.ply")
    assert list(tmp_path.iterdir()) == []


def test_more_rows_than_memory_holds_are_refused_before_reading(tmp_path):
    from maquette.core.errors import UserError
    from maquette.io.ply import read_columns

    path = tmp_path / "huge.ply"
    lines = ["ply", "format binary_little_endian 1.0", "element vertex 4000000000000000", "property float x"]
    header = "\n".join([*lines, "end_header", ""])
    path.write_bytes(header.encode() + bytes(8))
    with pytest.raises(UserError, match="ends early"):
        read_columns(path)
