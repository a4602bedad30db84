"""Videos, read back with imageio."""

import imageio.v2 as imageio
import numpy as np
import pytest
import torch

from maquette.core.errors import MissingFileError, UserError
from maquette.io.video import read_video, write_video


@pytest.fixture
def frames():
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])
    return colours[:, None, None].expand(4, 32, 48, 3)


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_frames_come_back_in_order(tmp_path, frames, suffix):
    again = read_video(write_video(tmp_path / f"a.{suffix}", frames, fps=10))
    assert again.shape == (4, 32, 48, 3)
    assert (again.float() / 255 - frames).abs().max() < 0.03


def test_frame_rate_and_duration(tmp_path, frames):
    with imageio.get_reader(write_video(tmp_path / "a.mp4", frames, fps=10)) as reader:
        assert reader.get_meta_data()["fps"] == 10
    with imageio.get_reader(write_video(tmp_path / "a.gif", frames, fps=10)) as reader:
        assert reader.get_meta_data()["duration"] == 100


def test_odd_sides_become_even(tmp_path):
    again = read_video(write_video(tmp_path / "a.mp4", torch.full((2, 33, 17, 3), 0.5)))
    assert again.shape == (2, 34, 18, 3)
    assert abs(int(again.float().mean()) - 128) <= 2


def test_grey_uint8_and_alpha_are_accepted(tmp_path):
    grey = write_video(tmp_path / "g.mp4", [np.full((16, 16), 200, np.uint8)] * 2)
    alpha = write_video(tmp_path / "a.mp4", torch.full((2, 16, 16, 4), 200 / 255))
    assert torch.equal(read_video(grey), read_video(alpha))


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_same_frames_same_bytes(tmp_path, frames, name):
    first, second = write_video(tmp_path / name, frames), write_video(tmp_path / "again" / name, frames)
    assert first.read_bytes() == second.read_bytes()


def test_nothing_or_mixed_sizes_are_refused(tmp_path, frames):
    for bad in ([], [torch.zeros(8, 8, 3), torch.zeros(8, 10, 3)]):
        with pytest.raises(UserError, match="at least one frame"):
            write_video(tmp_path / "a.mp4", bad)
    with pytest.raises(UserError, match=r"not \.webm"):
        write_video(tmp_path / "a.webm", frames)
    with pytest.raises(MissingFileError):
        read_video(tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []
