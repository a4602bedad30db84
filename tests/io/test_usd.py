"""USD stages, read back with its own library and with our reader."""

import pytest
import torch

from maquette.core.errors import MissingBackendError, RunFailed, UserError
from maquette.io.mesh import read_mesh, write_mesh
from maquette.ops.mesh import Mesh, bounding_box, triangles, volume

pytest.importorskip("pxr", reason="usd-core is not installed")
from pxr import Gf, Usd, UsdGeom, UsdShade

QUADS = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]
SUFFIXES = ["usd", "usda", "usdc", "usdz"]


@pytest.fixture
def box() -> Mesh:
    """Sides 1, 2, 3 along x, y, z; all three maps."""
    corners = torch.tensor([[x, y, z] for z in (0.0, 3.0) for y in (0.0, 2.0) for x in (0.0, 1.0)])
    faces = torch.tensor([t for a, b, c, d in QUADS for t in ((a, b, c), (a, c, d))])
    draw = torch.Generator().manual_seed(0)
    maps = {
        name: torch.rand(8, 12, 3, generator=draw).mul(255).round() / 255
        for name in ("base_color", "metallic_roughness", "normal")
    }
    uvs = torch.rand(20, 2, generator=draw)
    uv_faces = torch.randint(0, 20, (12, 3), generator=draw)
    return Mesh(corners, faces, uvs=uvs, uv_faces=uv_faces, texture=maps, extras={"prompt": "a box"})


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_everything_comes_back(box, tmp_path, suffix):
    files = write_mesh(box, tmp_path / f"my toy.{suffix}")
    assert sorted(tmp_path.iterdir()) == sorted(files) and len(files) == (1 if suffix == "usdz" else 4)
    again = read_mesh(files[0])
    assert torch.equal(triangles(again), triangles(box))
    torch.testing.assert_close(again.uvs[again.uv_faces], box.uvs[box.uv_faces])
    assert {name: torch.equal(image, box.texture[name]) for name, image in again.texture.items()} == {
        "base_color": True,
        "metallic_roughness": True,
        "normal": True,
    }


def test_the_stage_says_its_axes_units_and_material(box, tmp_path):
    path = write_mesh(box, tmp_path / "a.usda", up="y", units="cm")[0]
    stage = Usd.Stage.Open(str(path))
    assert UsdGeom.GetStageUpAxis(stage) == "Y" and UsdGeom.GetStageMetersPerUnit(stage) == 0.01
    root = stage.GetDefaultPrim()
    assert root.GetCustomData()["prompt"] == "a box"
    prim = UsdGeom.Mesh(stage.GetPrimAtPath("/model/mesh"))
    box_of_file = Gf.Range3d(*(Gf.Vec3d(*corner) for corner in prim.GetExtentAttr().Get()))
    assert list(box_of_file.GetMax()) == [200, 300, 100]
    material = UsdShade.MaterialBindingAPI(prim).ComputeBoundMaterial()[0]
    surface = material.ComputeSurfaceSource()[0]
    assert surface.GetIdAttr().Get() == "UsdPreviewSurface"
    metallic = surface.GetInput("metallic").GetConnectedSources()[0][0]
    assert metallic.sourceName == "b" and metallic.source.GetInput("sourceColorSpace").Get() == "raw"
    assert prim.GetSubdivisionSchemeAttr().Get() == "none"
    assert bounding_box(read_mesh(path)).flatten().tolist() == pytest.approx([0, 0, 0, 1, 2, 3])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_its_own_validators_have_no_complaint_and_bytes_repeat(box, tmp_path, suffix):
    validation = pytest.importorskip("pxr.UsdValidation", reason="only newer versions validate")
    first = write_mesh(box, tmp_path / f"a.{suffix}")[0]
    again = write_mesh(box, tmp_path / "again" / f"a.{suffix}")[0]
    assert hash(first.read_bytes()) == hash(again.read_bytes())
    stage = Usd.Stage.Open(str(first))
    validators = validation.ValidationRegistry().GetOrLoadAllValidators()
    found = validation.ValidationContext(validators).Validate(stage)
    assert [one.GetMessage() for one in found] == []


def test_vertex_colours_are_linear_in_the_file(box, tmp_path):
    bare = Mesh(box.vertices, box.faces, vertex_colors=torch.linspace(0, 1, 24).reshape(8, 3))
    path = write_mesh(bare, tmp_path / "a.usda")[0]
    stage = Usd.Stage.Open(str(path))
    stored = UsdGeom.Mesh(stage.GetPrimAtPath("/model/mesh")).GetDisplayColorAttr().Get()
    assert stored[0][2] == pytest.approx(((2 / 23 + 0.055) / 1.055) ** 2.4)
    torch.testing.assert_close(read_mesh(path).vertex_colors, bare.vertex_colors, atol=1e-5, rtol=0)


def test_foreign_stages(tmp_path):
    """Polygons, moved and mirrored parts, a part that is left-handed, one colour, y up in centimetres."""
    stage = Usd.Stage.CreateNew(str(tmp_path / "a.usda"))
    UsdGeom.SetStageUpAxis(stage, "Y")
    UsdGeom.SetStageMetersPerUnit(stage, 0.01)
    for name, scale, orientation in (
        ("a", 100, "rightHanded"),
        ("b", -100, "rightHanded"),
        ("c", 100, "left"),
    ):
        prim = UsdGeom.Mesh.Define(stage, f"/{name}")
        prim.CreatePointsAttr([(x, y, z) for z in (0, 1) for y in (0, 1) for x in (0, 1)])
        prim.CreateFaceVertexCountsAttr([4] * 6)
        quads = [corner for quad in QUADS for corner in (quad[::-1] if orientation == "left" else quad)]
        prim.CreateFaceVertexIndicesAttr(quads)
        if orientation == "left":
            prim.CreateOrientationAttr("leftHanded")
        prim.AddTransformOp().Set(Gf.Matrix4d(1).SetScale(Gf.Vec3d(100, 100, scale)))
    prim.CreateDisplayColorPrimvar("constant").Set([(1.0, 0.0, 0.0)])
    stage.GetRootLayer().Save()
    mesh = read_mesh(tmp_path / "a.usda")
    assert float(volume(mesh)) == pytest.approx(3.0) and mesh.n_faces == 36
    assert bounding_box(mesh).tolist() == [[-1, 0, 0], [1, 1, 1]]
    torch.testing.assert_close(mesh.vertex_colors[[0, -1]], torch.tensor([[0.75] * 3, [1.0, 0.0, 0.0]]))


def test_what_is_not_a_stage(box, tmp_path):
    for suffix in SUFFIXES:
        path = tmp_path / f"a.{suffix}"
        path.write_text("hello")
        with pytest.raises(UserError, match="USD stage"):
            read_mesh(path)
    stage = Usd.Stage.CreateNew(str(tmp_path / "empty.usda"))
    stage.GetRootLayer().Save()
    with pytest.raises(UserError, match="no faces"):
        read_mesh(tmp_path / "empty.usda")


def test_missing_and_broken_textures_are_named(box, tmp_path):
    files = write_mesh(box, tmp_path / "a.usda")
    files[1].write_bytes(files[1].read_bytes()[:60])
    with pytest.raises(UserError, match=r"cannot be read: \./a_base_color\.png"):
        read_mesh(files[0])
    files[1].unlink()
    with pytest.raises(UserError, match=r"not found: \./a_base_color\.png"):
        read_mesh(files[0])


def test_without_the_package(box, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pxr", None)
    with pytest.raises(MissingBackendError, match=r"maquette\[usd\]"):
        write_mesh(box, tmp_path / "a.usdc")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_not_written(box, tmp_path):
    with pytest.raises(RunFailed):
        write_mesh(Mesh(box.vertices, box.faces[:0]), tmp_path / "a.usdz")
    with pytest.raises(UserError, match=r"Cannot write"):
        (tmp_path / "b.usdz").mkdir()
        write_mesh(box, tmp_path / "b.usdz")
    assert [one.name for one in tmp_path.iterdir()] == ["b.usdz"]
