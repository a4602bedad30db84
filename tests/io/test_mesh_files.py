"""Mesh files, read back with trimesh, with a JSON parser and with our own reader."""

import errno
import json
import os
import struct

import numpy as np
import pytest
import torch
import trimesh

from maquette.core.errors import MissingFileError, RunFailed, UserError
from maquette.io import readback
from maquette.io.mesh import is_watertight, read_mesh, write_glb, write_mesh, write_obj
from maquette.ops.mesh import Mesh, bounding_box, triangles

QUADS = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]


@pytest.fixture
def box() -> Mesh:
    """A box with sides 1, 2, 3 along x, y, z; each side has its own column of the texture."""
    corners = torch.tensor([[x, y, z] for z in (0.0, 3.0) for y in (0.0, 2.0) for x in (0.0, 1.0)])
    faces = torch.tensor([t for a, b, c, d in QUADS for t in ((a, b, c), (a, c, d))])
    u = [[(k + 0.1) / 6, (k + 0.9) / 6] for k in range(6)]
    uvs = torch.tensor([[u[k][i], v] for k in range(6) for i, v in ((0, 0.1), (1, 0.1), (1, 0.9), (0, 0.9))])
    uv_faces = torch.tensor(
        [t for k in range(6) for t in ((4 * k, 4 * k + 1, 4 * k + 2), (4 * k, 4 * k + 2, 4 * k + 3))]
    )
    colours = torch.rand(8, 12, 3, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255
    return Mesh(corners, faces, uvs=uvs, uv_faces=uv_faces, texture={"base_color": colours})


@pytest.fixture
def painted(box) -> Mesh:
    return Mesh(box.vertices, box.faces, vertex_colors=torch.linspace(0, 1, 24).reshape(8, 3))


def glb_tree(path) -> dict:
    data = path.read_bytes()
    magic, version, total, length, kind = struct.unpack_from("<5I", data)
    assert (magic, version, total, kind) == (0x46546C67, 2, len(data), 0x4E4F534A)
    assert length % 4 == 0
    return json.loads(data[20 : 20 + length])


def test_glb_round_trip_is_exact(box, tmp_path):
    again = read_mesh(write_glb(box, tmp_path / "a.glb"))
    assert torch.equal(triangles(again), triangles(box))
    assert again.n_vertices == 8
    torch.testing.assert_close(again.uvs[again.uv_faces], box.uvs[box.uv_faces], atol=1e-7, rtol=0)
    assert torch.equal(again.texture["base_color"], box.texture["base_color"])


def test_glb_is_y_up_and_faces_plus_z(box, tmp_path):
    """The world's front (+x), right (+y) and top (+z) are glTF's +Z, +X and +Y."""
    loaded = trimesh.load(write_glb(box, tmp_path / "a.glb"), force="mesh")
    assert loaded.bounds.tolist() == [[0, 0, 0], [2, 3, 1]]
    assert loaded.volume == pytest.approx(6.0)


def test_glb_tells_its_convention_and_what_it_was_given(box, tmp_path):
    named = box.replace(extras={"name": "toy", "prompt": "a red box"})
    path = write_glb(named, tmp_path / "a.glb")
    asset = glb_tree(path)["asset"]
    assert asset["extras"]["prompt"] == "a red box"
    assert "y up" in asset["extras"]["convention"] and asset["generator"] == "maquette"
    assert read_mesh(path).extras["name"] == "toy"


def test_glb_obeys_the_rules_a_validator_checks(box, tmp_path):
    tree = glb_tree(write_glb(box, tmp_path / "a.glb"))
    position = tree["accessors"][tree["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
    assert position["min"] == [0, 0, 0] and position["max"] == [2, 3, 1]
    assert all(view["byteOffset"] % 4 == 0 for view in tree["bufferViews"])
    last = tree["bufferViews"][-1]
    assert tree["buffers"][0]["byteLength"] >= last["byteOffset"] + last["byteLength"]
    surface = tree["materials"][0]["pbrMetallicRoughness"]
    assert surface["metallicFactor"] == 0.0 and surface["roughnessFactor"] == 1.0


def test_glb_normals_are_unit_and_smooth_over_seams(box, tmp_path):
    path = write_glb(box, tmp_path / "a.glb")
    accessor = glb_tree(path)["accessors"][
        glb_tree(path)["meshes"][0]["primitives"][0]["attributes"]["NORMAL"]
    ]
    view = glb_tree(path)["bufferViews"][accessor["bufferView"]]
    data = path.read_bytes()
    start = 20 + struct.unpack_from("<I", data, 12)[0] + 8 + view["byteOffset"]
    normals = np.frombuffer(data[start : start + view["byteLength"]], "<f4").reshape(-1, 3)
    assert len(normals) == 24
    assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)
    assert len({tuple(np.round(n, 5)) for n in normals}) == 8


def test_unlit_is_declared(box, tmp_path):
    tree = glb_tree(write_glb(box, tmp_path / "a.glb", unlit=True))
    assert tree["extensionsUsed"] == ["KHR_materials_unlit"]
    assert tree["materials"][0]["extensions"] == {"KHR_materials_unlit": {}}


def test_jpeg_textures_are_embedded_as_such(box, tmp_path):
    path = write_glb(box, tmp_path / "a.glb", texture_format="jpg")
    assert glb_tree(path)["images"][0]["mimeType"] == "image/jpeg"
    assert trimesh.load(path, force="mesh").visual.material.baseColorTexture.size == (12, 8)
    with pytest.raises(UserError, match="png or jpg"):
        write_glb(box, tmp_path / "b.glb", texture_format="tga")


def test_all_maps_travel(box, tmp_path):
    maps = {
        name: torch.full((4, 4, 3), 0.2 * (k + 1))
        for k, name in enumerate(("base_color", "metallic_roughness", "normal"))
    }
    again = read_mesh(write_glb(box.replace(texture=maps), tmp_path / "a.glb"))
    assert {name: round(image.mean().item(), 3) for name, image in again.texture.items()} == {
        "base_color": 0.2,
        "metallic_roughness": 0.4,
        "normal": 0.6,
    }


def test_vertex_colours_are_linear_in_glb(painted, tmp_path):
    path = write_glb(painted, tmp_path / "a.glb")
    stored = next(iter(trimesh.load_scene(path, process=False).geometry.values()))
    assert stored.visual.vertex_attributes["color"][0][2] == pytest.approx(((2 / 23 + 0.055) / 1.055) ** 2.4)
    torch.testing.assert_close(read_mesh(path).vertex_colors, painted.vertex_colors, atol=1e-5, rtol=0)


def test_obj_with_material_round_trip(box, tmp_path):
    files = write_obj(box, tmp_path / "toy.obj", texture_format="png")
    assert [file.name for file in files] == ["toy.obj", "toy.mtl", "toy_kd.png"]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(file.name for file in files)
    again = read_mesh(files[0])
    assert torch.equal(triangles(again), triangles(box))
    torch.testing.assert_close(again.uvs[again.uv_faces], box.uvs[box.uv_faces])
    assert torch.equal(again.texture["base_color"], box.texture["base_color"])


def test_obj_names_may_hold_blanks(box, tmp_path):
    again = read_mesh(write_obj(box, tmp_path / "my red toy.obj", texture_format="png")[0])
    assert torch.equal(again.texture["base_color"], box.texture["base_color"])


@pytest.mark.parametrize(
    ("uvs", "normals", "corner"),
    [(True, True, "f 1/1/1 "), (True, False, "f 1/1 "), (False, True, "f 1//1 "), (False, False, "f 1 ")],
)
def test_obj_faces_name_only_what_is_there(box, tmp_path, uvs, normals, corner):
    mesh = box if uvs else Mesh(box.vertices, box.faces)
    text = write_obj(mesh, tmp_path / "a.obj", normals=normals)[0].read_text()
    assert next(line for line in text.splitlines() if line.startswith("f ")).startswith(corner)


def test_obj_with_vertex_colours(painted, tmp_path):
    files = write_mesh(painted, tmp_path / "a.obj")
    assert len(files) == 1
    torch.testing.assert_close(read_mesh(files[0]).vertex_colors, painted.vertex_colors, atol=1 / 254, rtol=0)


@pytest.mark.parametrize("suffix", ["ply", "stl"])
def test_plain_formats_keep_the_surface(painted, tmp_path, suffix):
    again = read_mesh(write_mesh(painted, tmp_path / f"a.{suffix}")[0])
    assert torch.equal(triangles(again), triangles(painted))
    if suffix == "ply":
        torch.testing.assert_close(again.vertex_colors, painted.vertex_colors, atol=1 / 254, rtol=0)


@pytest.mark.parametrize("name", ["a.glb", "a.obj", "a.ply", "a.stl"])
def test_same_mesh_same_bytes(box, tmp_path, name):
    first, second = write_mesh(box, tmp_path / name), write_mesh(box, tmp_path / "again" / name)
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_watertight_after_reading(box, tmp_path):
    again = read_mesh(write_glb(box, tmp_path / "a.glb"))
    assert is_watertight(again)
    assert not is_watertight(Mesh(again.vertices, again.faces[1:]))
    assert bounding_box(again).tolist() == [[0, 0, 0], [1, 2, 3]]


@pytest.mark.parametrize("name", ["a.glb", "a.obj", "a.stl"])
def test_a_full_disk_leaves_nothing(box, tmp_path, monkeypatch, name):
    def full(self, data):
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(type(tmp_path), "write_bytes", full)
    with pytest.raises(RunFailed, match="disk is full"):
        write_mesh(box, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.glb", "a.obj"])
def test_a_file_that_reads_back_differently_is_not_saved(box, tmp_path, monkeypatch, name):
    write_mesh(box, tmp_path / name)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    load = readback.load

    def damaged(path):
        loaded = load(path)
        loaded.vertices = loaded.vertices + 0.01
        return loaded

    monkeypatch.setattr(readback, "load", damaged)
    with pytest.raises(RunFailed, match="did not read back"):
        write_mesh(box.replace(vertices=box.vertices * 2), tmp_path / name)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_nothing_and_nan_are_refused(box, tmp_path):
    with pytest.raises(RunFailed, match="no faces"):
        write_glb(Mesh(box.vertices, box.faces[:0]), tmp_path / "a.glb")
    with pytest.raises(RunFailed, match="not finite"):
        write_glb(box.replace(vertices=box.vertices * float("nan")), tmp_path / "a.glb")
    with pytest.raises(UserError, match=r"\.fbx"):
        write_mesh(box, tmp_path / "a.fbx")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_no_folder_is_the_users_mistake(box, tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("a.glb", "a.obj"):
        with pytest.raises(UserError, match="Cannot write"):
            write_mesh(box, tmp_path / "file" / name)


def test_reading_what_is_not_a_mesh(tmp_path):
    with pytest.raises(MissingFileError):
        read_mesh(tmp_path / "none.glb")
    for name in ("a.glb", "a.obj", "a.xyzzy"):
        (tmp_path / name).write_text("hello")
        with pytest.raises(UserError, match=name):
            read_mesh(tmp_path / name)


def test_a_scene_of_moved_parts_becomes_one_mesh(tmp_path):
    scene = trimesh.Scene()
    for x in (0.0, 5.0):
        part = trimesh.creation.box((1, 1, 1))
        scene.add_geometry(part, transform=trimesh.transformations.translation_matrix((x, 0, 0)))
    scene.export(tmp_path / "scene.glb")
    assert bounding_box(read_mesh(tmp_path / "scene.glb")).tolist() == [[-0.5, -0.5, -0.5], [0.5, 5.5, 0.5]]


@pytest.mark.parametrize("name", ["a.obj", "a.ply", "a.stl"])
def test_axes_and_units_of_a_file_are_chosen(painted, tmp_path, name):
    path = write_mesh(painted, tmp_path / name, up="y", units="mm")[0]
    assert np.allclose(trimesh.load(path, force="mesh").bounds, [[0, 0, 0], [2000, 3000, 1000]])
    again = read_mesh(path, up="y", units="mm")
    torch.testing.assert_close(triangles(again), triangles(painted))
    with pytest.raises(UserError, match="y or z"):
        write_mesh(painted, tmp_path / name, up="x")
    with pytest.raises(UserError, match="m, dm, cm, mm, in, ft"):
        read_mesh(path, units="parsec")


def test_gltf_has_no_choice_of_axes(painted, tmp_path):
    for options in ({"up": "z"}, {"units": "mm"}):
        with pytest.raises(UserError, match="by definition"):
            write_mesh(painted, tmp_path / "a.glb", **options)
    assert write_mesh(painted, tmp_path / "a.glb", up="y")


def test_obj_says_its_axes(painted, tmp_path):
    path = write_mesh(painted, tmp_path / "a.obj", up="y", units="cm")[0]
    assert path.read_text().startswith("# maquette: y up, front +z, in cm\n")


def test_a_textured_mesh_keeps_its_colours_as_points_of_a_ply(box, tmp_path):
    flat = box.replace(texture={"base_color": torch.tensor([0.2, 0.4, 0.6]).expand(4, 4, 3)})
    again = read_mesh(write_mesh(flat, tmp_path / "a.ply")[0])
    torch.testing.assert_close(again.vertex_colors, torch.tensor([[0.2, 0.4, 0.6]]).expand(8, 3))


def test_an_open_surface_is_no_stl(box, tmp_path):
    opened = Mesh(box.vertices, box.faces[2:])
    with pytest.raises(UserError, match="open edges: 4, around 1 holes") as err:
        write_mesh(opened, tmp_path / "a.stl")
    assert "--repair" in str(err.value) and list(tmp_path.iterdir()) == []
    again = read_mesh(write_mesh(opened, tmp_path / "a.stl", repair=True)[0])
    assert is_watertight(again) and again.n_faces == 12


def test_bodies_that_touch_are_an_stl(box, tmp_path):
    two = Mesh(
        torch.cat([box.vertices, box.vertices + torch.tensor([1.0, 2.0, 0.0])]),
        torch.cat([box.faces, box.faces + 8]),
    )
    assert read_mesh(write_mesh(two, tmp_path / "a.stl")[0]).n_faces == 24


def test_obj_brings_all_its_maps_back(box, tmp_path):
    draw = torch.Generator().manual_seed(0)
    maps = {name: torch.rand(6, 5, 3, generator=draw) for name in ("metallic_roughness", "normal")}
    mesh = box.replace(texture={**box.texture, **maps})
    path = write_obj(mesh, tmp_path / "a.obj", texture_format="png")[0]
    assert "map_Bump a_norm.png" in (tmp_path / "a.mtl").read_text()
    again = read_mesh(path).texture
    for channel in (1, 2):
        torch.testing.assert_close(
            again["metallic_roughness"][..., channel],
            maps["metallic_roughness"][..., channel],
            atol=0.002,
            rtol=0,
        )
    torch.testing.assert_close(again["normal"], maps["normal"], atol=0.002, rtol=0)


def test_maps_of_other_writers(box, tmp_path):
    """Options before a name, another name for normals, and heights, which are no normals."""
    path = write_obj(box, tmp_path / "a.obj", texture_format="png")[0]
    from maquette.io.images import write_image

    write_image(tmp_path / "n b.png", torch.tensor([0.5, 0.5, 1.0]).expand(2, 2, 3))
    write_image(tmp_path / "h.png", torch.full((2, 2), 0.5))
    library = "newmtl a\nKd 1 1 1\nmap_Kd -s 1 1 1 a_kd.png\n"
    (tmp_path / "a.mtl").write_text(library + "map_Bump -bm 1.0 n b.png\n")
    assert set(read_mesh(path).texture) == {"base_color", "normal"}
    (tmp_path / "a.mtl").write_text(library + "bump h.png\n")
    assert set(read_mesh(path).texture) == {"base_color"}


def test_one_colour_of_a_material(tmp_path):
    """glTF's factors are linear light; a texture is multiplied with them."""
    red = trimesh.visual.material.PBRMaterial(baseColorFactor=[128, 0, 0, 255])
    part = trimesh.creation.box()
    part.visual = trimesh.visual.TextureVisuals(material=red)
    part.export(tmp_path / "a.glb")
    expected = 1.055 * (128 / 255) ** (1 / 2.4) - 0.055
    assert read_mesh(tmp_path / "a.glb").vertex_colors[0].tolist() == pytest.approx(
        [expected, 0, 0], abs=1e-3
    )


def test_parts_with_and_without_pictures_keep_their_colours(box, tmp_path):
    scene = trimesh.Scene()
    for shift, color in ((0.0, [255, 0, 0, 255]), (5.0, [0, 0, 255, 255])):
        part = trimesh.creation.box()
        part.visual = trimesh.visual.TextureVisuals(
            material=trimesh.visual.material.PBRMaterial(baseColorFactor=color)
        )
        part.apply_translation((shift, 0, 0))
        scene.add_geometry(part)
    scene.export(tmp_path / "a.glb")
    mesh = read_mesh(tmp_path / "a.glb")
    assert mesh.vertex_colors[mesh.vertices[:, 1] < 1].mean(dim=0).tolist() == pytest.approx([1, 0, 0])
    assert mesh.vertex_colors[mesh.vertices[:, 1] > 1].mean(dim=0).tolist() == pytest.approx([0, 0, 1])
