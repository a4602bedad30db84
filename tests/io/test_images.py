"""Pictures, read back with Pillow and with our own reader."""

import errno
import os

import numpy as np
import pytest
import torch
from PIL import Image

from maquette.core.errors import MissingFileError, RunFailed, UserError
from maquette.io.images import read_image, write_image, write_jpg, write_png


@pytest.fixture
def ramp():
    u, v = torch.meshgrid(torch.linspace(0, 1, 5), torch.linspace(0, 1, 7), indexing="ij")
    return torch.stack([u, v, 1 - u], dim=-1)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_keeps_every_value(tmp_path, channels):
    stored = torch.randint(
        0, 256, (6, 4, channels), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    path = write_image(tmp_path / "deep" / "er" / "a.png", stored)
    with Image.open(path) as picture:
        assert np.array_equal(np.asarray(picture).reshape(6, 4, channels), stored.numpy())
    assert torch.equal(read_image(path), stored.float() / 255)


def test_floats_are_rounded_and_clamped(tmp_path):
    values = torch.tensor([[-1.0, 0.0, 0.5, 1.0, 2.0, float("nan"), float("inf")]])
    again = np.asarray(Image.open(write_png(tmp_path / "a.png", values)))
    assert again.tolist() == [[0, 0, 128, 255, 255, 0, 255]]


def test_sixteen_bits_keep_depth(tmp_path):
    depth = torch.linspace(0, 1, 1000).reshape(20, 50)
    path = write_image(tmp_path / "depth.png", depth, bits=16)
    with Image.open(path) as picture:
        assert np.asarray(picture).dtype == np.uint16
    assert (read_image(path)[..., 0] - depth).abs().max() < 1 / 65535


def test_jpeg_is_close_and_drops_alpha(tmp_path, ramp):
    smooth = torch.nn.functional.interpolate(ramp.permute(2, 0, 1)[None], (40, 56), mode="bilinear")[
        0
    ].permute(1, 2, 0)
    path = write_jpg(tmp_path / "a.png", torch.cat([smooth, torch.ones(40, 56, 1)], dim=-1))
    assert path.name == "a.jpg"
    assert (read_image(path) - smooth).abs().max() < 0.03


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_same_picture_same_bytes(tmp_path, ramp, name):
    first, second = write_image(tmp_path / name, ramp), write_image(tmp_path / "again" / name, ramp)
    assert first.read_bytes() == second.read_bytes()


def test_palette_pictures_are_read_as_colours(tmp_path):
    Image.fromarray(np.full((2, 2, 3), (255, 0, 0), np.uint8)).convert("P").save(tmp_path / "p.png")
    assert read_image(tmp_path / "p.png").tolist() == [[[1.0, 0.0, 0.0]] * 2] * 2


@pytest.mark.parametrize("shape", [(3,), (4, 4, 2), (0, 4, 3), (1, 4, 4, 3)])
def test_other_shapes_are_refused(tmp_path, shape):
    with pytest.raises(UserError, match="A picture is"):
        write_image(tmp_path / "a.png", torch.zeros(shape))
    assert list(tmp_path.iterdir()) == []


def test_other_formats_are_refused(tmp_path, ramp):
    with pytest.raises(UserError, match=r"not \.bmp"):
        write_image(tmp_path / "a.bmp", ramp)
    with pytest.raises(UserError, match="one channel"):
        write_image(tmp_path / "a.png", ramp, bits=16)


def test_reading_what_is_not_a_picture(tmp_path):
    with pytest.raises(MissingFileError):
        read_image(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(UserError, match="not a picture"):
        read_image(tmp_path / "text.png")


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, ramp, monkeypatch):
    path = write_image(tmp_path / "a.png", ramp)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(type(path), "write_bytes", full)
    with pytest.raises(RunFailed, match="disk is full"):
        write_image(path, 1 - ramp)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == before


def test_a_folder_that_is_a_file_is_the_users_mistake(tmp_path, ramp):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"):
        write_image(tmp_path / "file" / "a.png", ramp)


def test_a_photo_is_read_as_the_camera_was_held(tmp_path, ramp):
    exif = Image.Exif()
    exif[0x0112] = 6  # rows of the file run from right to left
    stored = (ramp * 255).byte().repeat_interleave(8, 0).repeat_interleave(8, 1)
    picture = Image.fromarray(stored.numpy())
    picture.save(tmp_path / "held.jpg", exif=exif, quality=95, subsampling=0)
    picture.save(tmp_path / "plain.jpg", quality=95, subsampling=0)
    picture.save(tmp_path / "odd.jpg", exif=b"Exif\0\0nothing of use", quality=95, subsampling=0)
    plain = read_image(tmp_path / "plain.jpg")
    assert torch.equal(read_image(tmp_path / "held.jpg"), plain.rot90(-1))
    assert torch.equal(read_image(tmp_path / "odd.jpg"), plain)
