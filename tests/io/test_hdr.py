"""Radiance pictures, whole and broken."""

import struct

import pytest
import torch

from maquette.core.errors import MissingFileError, UserError
from maquette.io.hdr import read_hdr, write_hdr

HEADER = b"#?RADIANCE\n# a comment\nFORMAT=32-bit_rle_rgbe\nEXPOSURE=1.0\n\n"


def picture(height, width):
    drawn = torch.rand(height, width, 3, generator=torch.Generator().manual_seed(0))
    return torch.exp(12 * drawn - 6)


def compressed(stored):
    """A line in the format's second compression: runs for repeated values, else as they are."""
    width = len(stored)
    data = struct.pack(">BBH", 2, 2, width)
    for channel in range(4):
        values = [pixel[channel] for pixel in stored]
        data += bytes([128 + 5, values[0]])
        rest = values[5:]
        while rest:
            part, rest = rest[:100], rest[100:]
            data += bytes([len(part), *part])
    return data


@pytest.mark.parametrize("size", [(4, 7), (3, 40), (1, 1)])
def test_what_is_written_comes_back_within_the_precision_of_the_format(tmp_path, size):
    light = picture(*size)
    again = read_hdr(write_hdr(tmp_path / "light.hdr", light))
    assert again.shape == (*size, 3)
    brightest = light.amax(dim=-1, keepdim=True)
    assert ((again - light).abs() <= brightest / 128).all()


def test_black_and_very_dark_texels_are_black(tmp_path):
    light = torch.zeros(2, 9, 3)
    light[0, 0] = 1e-42
    assert read_hdr(write_hdr(tmp_path / "dark.hdr", light)).max() == 0


def test_compressed_lines(tmp_path):
    row = [(10, 20, 30, 129)] * 5 + [(i, 2 * i, 255 - i, 120 + i % 9) for i in range(115)]
    path = tmp_path / "rle.hdr"
    path.write_bytes(HEADER + b"-Y 2 +X 120\n" + compressed(row) * 2)
    light = read_hdr(path)
    expected = torch.tensor([[m * 2.0 ** (e - 136) for m in (r, g, b)] for r, g, b, e in row])
    torch.testing.assert_close(light, expected.expand(2, 120, 3))


def test_old_repetitions(tmp_path):
    path = tmp_path / "old.hdr"
    pixels = bytes([8, 16, 32, 129]) + bytes([1, 1, 1, 3]) + bytes([64, 0, 0, 129]) * 2
    path.write_bytes(HEADER + b"-Y 2 +X 3\n" + pixels)
    light = read_hdr(path)
    torch.testing.assert_close(light[0], light[0, :1].expand(3, 3))
    torch.testing.assert_close(light[1, :, 0], torch.tensor([0.0625, 0.5, 0.5]))


@pytest.mark.parametrize(
    "content",
    [
        b"not a picture",
        b"#?RADIANCE\nno size",
        HEADER + b"+X 4 -Y 4\n" + bytes(64),
        HEADER + b"-Y 4 +X 4\n" + bytes(20),
        HEADER + b"-Y 0 +X 4\n",
        HEADER + b"-Y 999999 +X 999999\n",
        HEADER + b"-Y 1 +X 16\n" + bytes([2, 2, 0, 16, 128 + 17, 3]),
        HEADER + b"-Y 2 +X 16\n" + compressed([(1, 1, 1, 128)] * 16),
        HEADER + b"-Y 1 +X 16\n" + bytes([2, 2, 0, 16, 16, 3]),
        HEADER + b"-Y 1 +X 2\n" + bytes([1, 1, 1, 2]),
        b"#?RADIANCE\nFORMAT=32-bit_rle_xyze\n\n-Y 1 +X 1\n" + bytes(4),
    ],
)
def test_broken_files_are_a_clear_error(tmp_path, content):
    path = tmp_path / "broken.hdr"
    path.write_bytes(content)
    with pytest.raises(UserError, match="broken"):
        read_hdr(path)


def test_a_missing_file_and_a_wrong_picture(tmp_path):
    with pytest.raises(MissingFileError):
        read_hdr(tmp_path / "absent.hdr")
    for wrong in (-torch.ones(2, 2, 3), torch.full((2, 2, 3), float("nan"))):
        with pytest.raises(UserError):
            write_hdr(tmp_path / "wrong.hdr", wrong)
    assert not list(tmp_path.iterdir())
