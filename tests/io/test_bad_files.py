"""Files that are cut, mixed up or damaged: one clear error each, and the process lives."""

import importlib.util
import json
import struct

import numpy as np
import pytest
import torch
import trimesh

from maquette.core.errors import MissingFileError, UserError
from maquette.io.mesh import READ_SUFFIXES, read_mesh, write_mesh
from maquette.ops.mesh import Mesh

HAS_USD = importlib.util.find_spec("pxr") is not None
usd = pytest.mark.skipif(not HAS_USD, reason="usd-core is not installed")
FORMATS = [
    ".glb",
    ".obj",
    ".ply",
    ".stl",
    *(pytest.param(one, marks=usd) for one in (".usda", ".usdc", ".usdz")),
]


@pytest.fixture
def ball() -> Mesh:
    solid = trimesh.creation.icosphere(2)
    vertices = torch.tensor(solid.vertices, dtype=torch.float32)
    faces = torch.tensor(np.array(solid.faces))
    picture = torch.rand(16, 16, 3, generator=torch.Generator().manual_seed(0))
    uvs = (vertices[:, :2] + 1) / 2
    return Mesh(vertices, faces, uvs=uvs, uv_faces=faces.clone(), texture={"base_color": picture})


def changed(path, change) -> None:
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize("suffix", FORMATS)
def test_truncated_anywhere(ball, tmp_path, suffix):
    """An error of ours, or, for text that was cut between two lines, a smaller mesh."""
    path = write_mesh(ball, tmp_path / f"a{suffix}")[0]
    whole = path.read_bytes()
    for length in np.linspace(0, len(whole) - 1, 20 if suffix != ".usdc" else 5).astype(int):
        path.write_bytes(whole[:length])
        try:
            mesh = read_mesh(path)
        except UserError as err:
            assert path.name in str(err) and len(str(err).splitlines()) <= 6
        else:
            assert suffix == ".obj" or (suffix == ".usda" and length > len(whole) - 3)
            assert mesh.faces.max() < mesh.n_vertices and mesh.n_faces <= ball.n_faces


@pytest.mark.parametrize("suffix", FORMATS)
def test_bytes_turned_over(ball, tmp_path, suffix):
    path = write_mesh(ball, tmp_path / f"a{suffix}")[0]
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    draw = np.random.default_rng(0)
    for _ in range(20 if suffix[:4] != ".usd" else 5):
        damaged = whole.copy()
        damaged[draw.integers(0, len(whole), 12)] ^= draw.integers(1, 256, 12, dtype=np.uint8)
        path.write_bytes(damaged.tobytes())
        try:
            mesh = read_mesh(path)
        except UserError:
            continue
        assert torch.isfinite(mesh.vertices[mesh.faces]).all()


@pytest.mark.parametrize("suffix", READ_SUFFIXES)
def test_something_else_in_every_suffix(tmp_path, suffix):
    if suffix.startswith(".usd") and not HAS_USD:
        pytest.skip("usd-core is not installed")
    path = tmp_path / f"a{suffix}"
    for content in (b"", b"hello", b"\0" * 300, b"\x89PNG\r\n\x1a\n" + b"x" * 100, "{ü".encode()):
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"a\{suffix}"):
            read_mesh(path)
    path.unlink()
    with pytest.raises(MissingFileError):
        read_mesh(path)
    path.mkdir()
    with pytest.raises(UserError, match="is a folder"):
        read_mesh(path)


def test_a_folder_names_what_it_holds(ball, tmp_path):
    write_mesh(ball, tmp_path / "run" / "mesh.glb")
    with pytest.raises(UserError, match=r"did you mean .*mesh\.glb"):
        read_mesh(tmp_path / "run")


@pytest.mark.parametrize(
    ("right", "wrong"), [(".glb", ".ply"), (".ply", ".stl"), (".stl", ".glb"), (".obj", ".glb")]
)
def test_the_wrong_suffix(ball, tmp_path, right, wrong):
    path = write_mesh(ball, tmp_path / f"a{right}")[0]
    with pytest.raises(UserError, match=r"a\."):
        read_mesh(path.rename(tmp_path / f"a{wrong}"))


def test_unknown_suffixes_name_the_known(tmp_path):
    (tmp_path / "a.fbx").write_text("hello")
    with pytest.raises(UserError, match=r"\.glb, .*not \.fbx"):
        read_mesh(tmp_path / "a.fbx")


def test_glb_of_another_version_or_length(ball, tmp_path):
    path = write_mesh(ball, tmp_path / "a.glb")[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + struct.pack("<I", 1) + whole[8:])
    with pytest.raises(UserError, match="version 1"):
        read_mesh(path)
    path.write_bytes(whole[:-4])
    with pytest.raises(UserError, match="ends early"):
        read_mesh(path)
    path.write_bytes(struct.pack("<3I", 0x46546C67, 2, 12))
    with pytest.raises(UserError, match="not JSON"):
        read_mesh(path)


def edited_glb(path, edit) -> None:
    data = path.read_bytes()
    length = struct.unpack_from("<I", data, 12)[0]
    tree = json.loads(data[20 : 20 + length])
    edit(tree)
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    rest = data[20 + length :]
    head = struct.pack("<5I", 0x46546C67, 2, 20 + len(text) + len(rest), len(text), 0x4E4F534A)
    path.write_bytes(head + text + rest)


@pytest.mark.parametrize(
    "edit",
    [
        lambda tree: tree["accessors"][0].update(count=10**9),
        lambda tree: tree["bufferViews"][0].update(byteOffset=10**9),
        lambda tree: tree["meshes"][0]["primitives"][0].update(indices=77),
        lambda tree: tree["meshes"].clear(),
        lambda tree: tree.pop("meshes"),
        lambda tree: tree.update(images=[{"bufferView": 99, "mimeType": "image/png"}]),
        lambda tree: tree["bufferViews"][-1].update(byteLength=30),
    ],
)
def test_glb_whose_parts_do_not_fit(ball, tmp_path, edit):
    path = write_mesh(ball, tmp_path / "a.glb")[0]
    edited_glb(path, edit)
    with pytest.raises(UserError, match=r"a\.glb"):
        read_mesh(path)


def test_indices_of_vertices_that_are_not_there(tmp_path):
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n")
    with pytest.raises(UserError, match=r"a\.obj"):
        read_mesh(tmp_path / "a.obj")
    header = "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    faces = "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    faces += "0 0 0\n1 0 0\n0 1 0\n3 0 1 9\n"
    (tmp_path / "a.ply").write_text(header + faces)
    with pytest.raises(UserError, match=r"a\.ply"):
        read_mesh(tmp_path / "a.ply")


def test_not_a_number_is_named(tmp_path):
    (tmp_path / "a.obj").write_text("v 0 0 nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    with pytest.raises(UserError, match="not finite"):
        read_mesh(tmp_path / "a.obj")


def test_a_ply_of_points_is_no_mesh(tmp_path):
    trimesh.PointCloud(np.zeros((3, 3))).export(tmp_path / "a.ply")
    with pytest.raises(UserError, match="mesh-from-points"):
        read_mesh(tmp_path / "a.ply")


def test_a_ply_without_a_coordinate(tmp_path):
    text = "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\n"
    text += "element face 1\nproperty list uchar int vertex_indices\nend_header\n0 0\n1 0\n0 1\n3 0 1 2\n"
    (tmp_path / "a.ply").write_text(text)
    with pytest.raises(UserError, match="lack z"):
        read_mesh(tmp_path / "a.ply")


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"hello", None])
def test_pictures_of_an_obj(ball, tmp_path, damage):
    path, _, picture = write_mesh(ball, tmp_path / "a.obj", texture_format="png")
    if damage is None:
        picture.unlink()
    else:
        changed(picture, damage)
    with pytest.raises(UserError, match=r"texture of .*a\.obj"):
        read_mesh(path)
