import json
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
import pytest
import safetensors.torch
import torch
import trimesh
from PIL import Image

from maquette.core.errors import ConfigError, MissingFileError, UserError
from maquette.ops.mesh import Mesh
from maquette.training.saving.mixin import SaverMixin


@pytest.fixture
def saver(tmp_path: Path) -> SaverMixin:
    saver = SaverMixin()
    saver.set_save_dir(tmp_path / "save")
    return saver


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def tetrahedron() -> Mesh:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    return Mesh(vertices, torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]))


def test_nothing_is_saved_before_the_folder_is_set() -> None:
    with pytest.raises(UserError, match="set_save_dir"):
        SaverMixin().save_json("a.json", {})


def test_save_path_makes_its_folder(saver: SaverMixin, tmp_path: Path) -> None:
    path = saver.get_save_path("a/b/c.txt")
    assert path == tmp_path / "save" / "a" / "b" / "c.txt" and path.parent.is_dir()


def test_convert_data_reaches_into_lists_and_mappings(saver: SaverMixin) -> None:
    converted = saver.convert_data({"a": [torch.ones(2, requires_grad=True)], "b": "text"})
    assert isinstance(converted["a"][0], np.ndarray) and converted["b"] == "text"


@pytest.mark.parametrize("data_format", ["HWC", "CHW"])
def test_rgb_image_is_exact(saver: SaverMixin, data_format: str) -> None:
    image = torch.rand(4, 5, 3) * 2 - 1
    given = image if data_format == "HWC" else image.permute(2, 0, 1)
    path = saver.save_rgb_image("it1.png", given, data_format, data_range=(-1, 1))
    assert np.array_equal(pixels(path), ((image + 1) / 2 * 255).round().byte().numpy())


def test_more_than_three_channels_become_tiles(saver: SaverMixin) -> None:
    image = torch.rand(4, 5, 4)
    stored = pixels(saver.save_rgb_image("latents.png", image))
    assert stored.shape == (4, 10, 3)
    assert np.array_equal(stored[:, 5:, 0], (image[..., 3] * 255).round().byte().numpy())
    assert not stored[:, 5:, 1:].any()


def test_grayscale_is_stretched_without_a_range_and_coloured_with_a_map(saver: SaverMixin) -> None:
    image = torch.linspace(3.0, 7.0, 6).reshape(2, 3)
    stored = pixels(saver.save_grayscale_image("depth.png", image, cmap=None))
    assert stored.min() == 0 and stored.max() == 255 and np.array_equal(stored[..., 0], stored[..., 2])
    for cmap in ("jet", "magma", "spectral"):
        first = pixels(saver.save_grayscale_image(f"{cmap}.png", image, cmap=cmap))[0, 0]
        assert len(set(first.tolist())) > 1
    jet = pixels(saver.save_grayscale_image("default.png", image))
    assert np.array_equal(jet, pixels(saver.get_save_path("jet.png")))


def test_constant_grayscale_is_no_division_by_zero(saver: SaverMixin) -> None:
    assert not pixels(saver.save_grayscale_image("flat.png", torch.full((2, 2), 5.0), cmap=None)).any()


def test_uv_image(saver: SaverMixin) -> None:
    v, u = torch.meshgrid(torch.linspace(0, 1, 8), torch.linspace(0, 1, 8), indexing="ij")
    uv = torch.stack([u, v], dim=-1)
    color = pixels(saver.save_uv_image("uv.png", uv, cmap="color"))
    assert color[0, -1].tolist() == [255, 0, 0] and color[-1, 0].tolist() == [0, 255, 0]
    assert len(np.unique(pixels(saver.save_uv_image("checker.png", uv)))) == 2


def test_image_grid_aligns_cells_and_writes_captions(saver: SaverMixin) -> None:
    cells = [
        {"type": "rgb", "img": torch.ones(16, 16, 3), "kwargs": {"data_format": "HWC"}},
        {"type": "grayscale", "img": torch.zeros(32, 32), "kwargs": {"data_range": (0, 1), "cmap": None}},
    ]
    row = pixels(saver.save_image_grid("row.png", cells))
    assert row.shape == (32, 64, 3) and row[:, :32].min() == 255 and row[:, 32:].max() == 0
    rows = pixels(saver.save_image_grid("rows.png", [cells, cells[:1]], align=16, texts=["", "no", ""]))
    assert rows.shape == (32, 32, 3) and rows[:16, 16:].max() > 100 and not rows[16:, 16:].any()


def test_captions_of_rows_stand_at_their_beginning(saver: SaverMixin) -> None:
    dark = {"type": "rgb", "img": np.zeros((16, 24, 3))}
    rows = pixels(saver.save_image_grid("rows.png", [[dark, dark], [dark, dark]], texts=[0.5, ""]))
    assert rows[:16, :24].any() and not rows[:16, 24:].any() and not rows[16:].any()


def test_cells_have_the_defaults_of_their_type(saver: SaverMixin) -> None:
    depth = torch.linspace(2.0, 4.0, 32).reshape(4, 8)
    uv = torch.rand(4, 8, 2)
    stored = pixels(
        saver.save_image_grid("a.png", [{"type": "grayscale", "img": depth}, {"type": "uv", "img": uv}])
    )
    assert np.array_equal(stored[:, :8], pixels(saver.save_grayscale_image("b.png", depth)))
    assert np.array_equal(stored[:, 8:], pixels(saver.save_uv_image("c.png", uv)))


RGB = {"type": "rgb", "img": np.zeros((4, 4, 3))}


@pytest.mark.parametrize(
    ("method", "arguments", "told"),
    [
        ("save_rgb_image", {"img": np.zeros((4, 4))}, "height, a width and channels"),
        ("save_rgb_image", {"img": np.zeros((0, 4, 3))}, "height, a width and channels"),
        ("save_rgb_image", {"img": np.zeros((4, 4, 3)), "data_format": "NHWC"}, "HWC or CHW"),
        ("save_rgb_image", {"img": np.zeros((4, 4, 3)), "data_range": (1.0, 1.0)}, "range of values"),
        ("save_uv_image", {"img": np.zeros((4, 4, 3))}, "two channels"),
        ("save_uv_image", {"img": np.zeros((4, 4, 2)), "cmap": "jet"}, "checkerboard or color"),
        ("save_grayscale_image", {"img": np.zeros((4, 4, 3))}, r"one channel, not the shape \(4, 4, 3\)"),
        ("save_grayscale_image", {"img": np.zeros((4, 4)), "cmap": "viridis"}, "no colour map"),
        ("save_image_grid", {"imgs": []}, "at least one picture"),
        ("save_image_grid", {"imgs": [RGB], "align": 0}, "aligned to"),
        ("save_image_grid", {"imgs": [RGB], "texts": ["a", "b"]}, "2 captions were given for 1"),
        ("save_image_grid", {"imgs": [{"type": "depth"}]}, "rgb, uv, grayscale"),
        ("save_image_grid", {"imgs": [{"type": "rgb"}]}, "under img"),
        ("save_image_grid", {"imgs": [{**RGB, "kwargs": {"cmap": "jet"}}]}, "not cmap"),
        ("save_cubemap", {"img": np.zeros((6, 2, 3, 3))}, "six square faces"),
    ],
)
def test_pictures_that_are_none_are_refused(
    saver: SaverMixin, method: str, arguments: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        getattr(saver, method)("a.png", **arguments)
    assert not saver.get_save_path("a.png").exists()


def test_image_takes_integers_only(saver: SaverMixin) -> None:
    image = np.arange(12, dtype=np.uint16).reshape(3, 4)
    assert np.array_equal(pixels(saver.save_image("a.png", image)), image)
    with pytest.raises(UserError, match="uint8"):
        saver.save_image("b.png", np.zeros((2, 2)))


def test_cubemap_is_a_cross(saver: SaverMixin) -> None:
    faces = torch.stack([torch.full((2, 2, 3), i / 5) for i in range(6)])
    stored = pixels(saver.save_cubemap("sky.png", faces))
    assert stored.shape == (6, 8, 3)
    assert [stored[2, x, 0] for x in (0, 2, 4, 6)] == [51, 204, 0, 255] and stored[0, 2, 0] == 102
    deep = pixels(saver.save_cubemap("features.png", torch.cat([faces, 1.0 - faces], dim=-1)))
    assert np.array_equal(deep[:, :8], stored) and deep[2, 12, 0] == 255


def test_data_and_state_dict_and_json_read_back(saver: SaverMixin) -> None:
    assert np.array_equal(np.load(saver.save_data("a", torch.arange(3))), [0, 1, 2])
    assert np.load(saver.save_data("b.npz", {"x": torch.ones(2)}))["x"].tolist() == [1, 1]
    state = torch.load(saver.save_state_dict("c.pth", {"w": torch.ones(2)}), weights_only=True)
    assert state["w"].tolist() == [1, 1]
    assert json.loads(saver.save_json("d.json", {"x": torch.ones(2), "n": 1}).read_text()) == {
        "x": [1, 1],
        "n": 1,
    }


def test_half_precision_and_none_are_converted(saver: SaverMixin) -> None:
    converted = saver.convert_data({"w": torch.ones(2, dtype=torch.bfloat16), "none": None, "pair": (1, 2)})
    assert converted["w"].dtype == np.float32 and converted["none"] is None and converted["pair"] == [1, 2]


def test_tensors_alone_can_be_safetensors(saver: SaverMixin) -> None:
    state = {"w": torch.arange(3.0), "b": torch.zeros(())}
    again = safetensors.torch.load_file(saver.save_state_dict("deep/a.safetensors", state))
    assert again.keys() == state.keys() and again["w"].tolist() == [0, 1, 2]
    with pytest.raises(UserError, match="not step"):
        saver.save_state_dict("b.safetensors", {**state, "step": 3})


@pytest.mark.parametrize(
    ("method", "filename", "data"),
    [
        ("save_state_dict", "a.pth", {"w": torch.ones(2), "path": Path("/")}),
        ("save_data", "a.npz", {"nested": {"x": torch.ones(2)}}),
        ("save_data", "a.npy", [torch.ones(2), torch.ones(3)]),
        ("save_json", "a.json", {"what": object()}),
    ],
)
def test_what_nobody_could_read_is_not_written(
    saver: SaverMixin, method: str, filename: str, data: Any
) -> None:
    with pytest.raises(UserError):
        getattr(saver, method)(filename, data)
    assert list(saver.get_save_dir().iterdir()) == []


@pytest.mark.parametrize("matcher", ["(", r"\d+\.png", r"(\w+)\.png"])
def test_a_matcher_without_a_number_is_refused(saver: SaverMixin, matcher: str) -> None:
    for name in ("1", "two"):
        saver.save_rgb_image(f"frames/{name}.png", torch.zeros(2, 2, 3))
    with pytest.raises(UserError, match=r"regular expression|number of a frame"):
        saver.save_img_sequence("turn", "frames", matcher)


@pytest.mark.parametrize("save_format", ["mp4", "gif"])
def test_image_sequence_is_in_the_order_of_the_numbers(saver: SaverMixin, save_format: str) -> None:
    for number in (10, 2, 1):
        saver.save_rgb_image(f"frames/{number}.png", torch.full((16, 16, 3), number / 10))
    path = saver.save_img_sequence("turn", "frames", r"(\d+)\.png", save_format=save_format, fps=5)
    means = [np.asarray(frame)[..., :3].mean() for frame in imageio.get_reader(path)]
    assert path.suffix == f".{save_format}" and means == sorted(means) and len(means) == 3
    with pytest.raises(MissingFileError):
        saver.save_img_sequence("none", "frames", r"(\d+)\.jpg")


def test_mesh_from_arrays_and_obj_with_material(saver: SaverMixin) -> None:
    mesh = tetrahedron()
    loaded = trimesh.load(saver.save_mesh("a.ply", mesh.vertices, mesh.faces), force="mesh")
    assert loaded.is_watertight and loaded.volume == pytest.approx(1 / 6)
    textured = mesh.replace(uvs=torch.rand(3, 2), uv_faces=torch.tensor([[0, 1, 2]] * 4))
    files = saver.save_obj("b.obj", textured, save_mat=True, map_Kd=torch.rand(8, 8, 3), map_format="png")
    assert files[0].name == "b.obj" and any(path.suffix == ".mtl" for path in files)
    assert trimesh.load(files[0], force="mesh").visual.material.image.size == (8, 8)
    plain = saver.save_obj("c.obj", textured)
    assert len(plain) == 1 and "vt " not in plain[0].read_text()


def test_mesh_from_arrays_has_its_texture_coordinates(saver: SaverMixin) -> None:
    mesh = tetrahedron()
    uvs, uv_faces = torch.rand(4, 2), torch.tensor([[0, 1, 2], [1, 2, 3], [0, 1, 3], [0, 2, 3]])
    loaded = trimesh.load(saver.save_mesh("a.obj", mesh.vertices, mesh.faces, uvs, uv_faces), process=False)
    corners = np.asarray(loaded.visual.uv)[loaded.faces]
    assert np.allclose(corners, uvs.numpy()[uv_faces.numpy()], atol=1e-6)


def test_obj_has_every_map(saver: SaverMixin) -> None:
    """Read with nothing but Pillow: the names of MTL, and pictures with the values that were given."""
    mesh = tetrahedron().replace(uvs=torch.rand(3, 2), uv_faces=torch.tensor([[0, 1, 2]] * 4))
    names = ("map_Kd", "map_Ks", "map_Bump", "map_Pm", "map_Pr")
    channels = {name: 1 if name in ("map_Pm", "map_Pr") else 3 for name in names}
    maps = {name: torch.rand(4, 6, channels[name]) for name in names}
    options = {"save_normal": True, "map_format": "png", **maps}
    files = saver.save_obj("deep/model", mesh, save_mat=True, **options)
    text = files[0].read_text().splitlines()
    assert files[0].name == "model.obj" and "mtllib model.mtl" in text
    assert [sum(line.startswith(key) for line in text) for key in ("vn ", "vt ")] == [4, 3]
    library = [line.split() for line in files[0].with_suffix(".mtl").read_text().splitlines()]
    entries = {words[0]: words[-1] for words in library}
    for name, given in maps.items():
        stored = pixels(files[0].with_name(entries[name]))
        assert np.array_equal(stored.reshape(4, 6, -1), (given * 255).round().byte().numpy()), name
    assert entries["newmtl"] == "surface" and entries["norm"] == entries["map_Bump"]


def test_maps_need_texture_coordinates(saver: SaverMixin) -> None:
    with pytest.raises(UserError, match="no texture coordinates"):
        saver.save_obj("a.obj", tetrahedron(), save_mat=True, map_Kd=torch.rand(4, 4, 3))


def test_vertex_colors_are_written_where_asked(saver: SaverMixin) -> None:
    mesh = tetrahedron().replace(vertex_colors=torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]))
    path = saver.save_obj("a.obj", mesh, save_vertex_color=True)[0]
    assert trimesh.load(path, process=False).visual.vertex_colors[:3, :3].tolist() == [
        [255, 0, 0], [0, 255, 0], [0, 0, 255],
    ]  # fmt: skip
    assert len(next(line for line in path.read_text().splitlines() if line.startswith("v ")).split()) == 7


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((torch.zeros(4, 2), torch.zeros(1, 3)), r"\(N, 3\), not \(4, 2\)"),
        ((torch.zeros(4, 3), None), "faces of a mesh"),
        ((torch.zeros(4, 3), torch.tensor([[0, 1, 4]])), "0 to 4; there are 4"),
        (
            (torch.rand(4, 3), torch.tensor([[0, 1, 2]]), torch.rand(2, 2), torch.tensor([[0, 1, 2]])),
            "0 to 2",
        ),
        ((torch.rand(3, 3), [[0, 1, 2]], torch.rand(3, 2), torch.ones(2, 3)), "1 faces have 2"),
    ],
)
def test_arrays_that_are_no_mesh_are_refused(saver: SaverMixin, arguments: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        saver.save_mesh("a.ply", *arguments)


def test_only_the_first_process_writes(saver: SaverMixin, monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = tetrahedron()
    source = saver.save_json("source.json", {})
    monkeypatch.setattr("maquette.training.saving.picture_files.is_leader", lambda: False)
    image = torch.zeros(4, 4, 3)
    paths = [
        saver.save_rgb_image("a.png", image), saver.save_uv_image("b.png", image[..., :2]),
        saver.save_grayscale_image("c.png", image[..., 0]), saver.save_image_grid("d.png", [RGB]),
        saver.save_image("e.png", image.byte()), saver.save_cubemap("f.png", torch.zeros(6, 2, 2, 3)),
        saver.save_data("g", image), saver.save_state_dict("h.pth", {}), saver.save_json("i.json", {}),
        saver.save_mesh("j.ply", mesh), *saver.save_obj("k", mesh), saver.save_file("l.json", source),
        saver.save_img_sequence("m", "frames", r"(\d+)"),
    ]  # fmt: skip
    assert [path.name for path in paths][6:] == [
        "g.npy", "h.pth", "i.json", "j.ply", "k.obj", "l.json", "m.mp4",
    ]  # fmt: skip
    assert list(saver.get_save_dir().iterdir()) == [source]
    saver._has_own_views = True  # as while a view of an evaluation is rendered
    assert saver.save_rgb_image("a.png", image).is_file()


def test_report_lies_beside_every_mesh(saver: SaverMixin) -> None:
    mesh = tetrahedron()
    for name, save in (("a.ply", saver.save_mesh), ("b.stl", saver.save_mesh), ("c.obj", saver.save_obj)):
        save(name, mesh)
        report = json.loads((saver.get_save_dir() / f"{name[0]}.report.json").read_text())
        assert report["file"] == name and report["faces"] == 4


def test_file_is_copied(saver: SaverMixin, tmp_path: Path) -> None:
    (tmp_path / "source.txt").write_text("hello")
    assert saver.save_file("deep/copy.txt", tmp_path / "source.txt").read_text() == "hello"
    with pytest.raises(MissingFileError):
        saver.save_file("x.txt", tmp_path / "gone.txt")


def test_loggers_are_named(saver: SaverMixin) -> None:
    saver.create_loggers({"wandb": {"enable": False}})
    assert saver.get_loggers() == []
    with pytest.raises(ConfigError, match=r"system\.loggers\.wandbb"):
        saver.create_loggers({"wandbb": {"enable": True}})


def test_roughness_alone_is_packed_without_metal():
    from maquette.ops.mesh import Mesh
    from maquette.training.saving.mesh_parts import texture_maps

    mesh = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
    packed = texture_maps(mesh, roughness=torch.full((2, 2, 1), 0.5))["metallic_roughness"]
    assert packed[0, 0].tolist() == [1.0, 0.5, 0.0]
