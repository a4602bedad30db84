import json
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from maquette.core.errors import ConfigError, MissingFileError, UserError
from maquette.ops.mesh import Mesh
from maquette.training.saving import SaverMixin


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
    stored = pixels(saver.save_grayscale_image("depth.png", image))
    assert stored.min() == 0 and stored.max() == 255 and np.array_equal(stored[..., 0], stored[..., 2])
    for cmap in ("jet", "magma", "spectral"):
        first = pixels(saver.save_grayscale_image(f"{cmap}.png", image, cmap=cmap))[0, 0]
        assert len(set(first.tolist())) > 1


def test_constant_grayscale_is_no_division_by_zero(saver: SaverMixin) -> None:
    assert not pixels(saver.save_grayscale_image("flat.png", torch.full((2, 2), 5.0))).any()


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
    rows = pixels(saver.save_image_grid("rows.png", [cells, cells[:1]], align=16, texts=["", "no"]))
    assert rows.shape == (32, 32, 3) and rows[:16, 16:].max() > 100 and not rows[16:, 16:].any()


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


def test_data_and_state_dict_and_json_read_back(saver: SaverMixin) -> None:
    assert np.array_equal(np.load(saver.save_data("a", torch.arange(3))), [0, 1, 2])
    assert np.load(saver.save_data("b.npz", {"x": torch.ones(2)}))["x"].tolist() == [1, 1]
    state = torch.load(saver.save_state_dict("c.pth", {"w": torch.ones(2)}), weights_only=True)
    assert state["w"].tolist() == [1, 1]
    assert json.loads(saver.save_json("d.json", {"x": torch.ones(2), "n": 1}).read_text()) == {
        "x": [1, 1],
        "n": 1,
    }


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
    from maquette.training.saving import texture_maps

    mesh = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
    packed = texture_maps(mesh, roughness=torch.full((2, 2, 1), 0.5))["metallic_roughness"]
    assert packed[0, 0].tolist() == [1.0, 0.5, 0.0]
