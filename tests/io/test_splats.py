from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from maquette.core.errors import RunFailed, UserError
from maquette.io.ply import ply_bytes, ply_kind, read_columns
from maquette.io.splats import read_splats, write_splats
from maquette.ops.gaussians import FLAT, Gaussians

FIELDS = ("means", "rotations", "scales", "opacities", "sh")


def cloud(n: int = 6, degree: int = 0) -> Gaussians:
    return Gaussians(
        means=torch.randn(n, 3),
        rotations=torch.nn.functional.normalize(torch.randn(n, 4), dim=-1),
        scales=torch.rand(n, 3) * 0.1 + 0.01,
        opacities=torch.rand(n) * 0.9 + 0.05,
        sh=torch.randn(n, (degree + 1) ** 2, 3),
    )


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_gaussians_come_back(tmp_path: Path, degree: int) -> None:
    written = cloud(degree=degree)
    path = write_splats(written, tmp_path / "splats.ply")
    read = read_splats(path)
    for name in FIELDS:
        torch.testing.assert_close(getattr(read, name), getattr(written, name), rtol=1e-5, atol=1e-6)
    assert ply_kind(path) == "splats" and list(tmp_path.iterdir()) == [path]


def test_file_has_logits_logarithms_and_channels_one_after_the_other(tmp_path: Path) -> None:
    written = cloud(n=2, degree=1)
    stored = trimesh.load(write_splats(written, tmp_path / "splats.ply")).metadata["_ply_raw"]["vertex"][
        "data"
    ]
    row = {name: float(np.asarray(stored[name]).reshape(-1)[1]) for name in stored.dtype.names}
    assert list(row)[:9] == ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    assert row["opacity"] == pytest.approx(float(torch.logit(written.opacities[1])), rel=1e-5)
    assert row["scale_2"] == pytest.approx(float(written.scales[1, 2].log()), rel=1e-5)
    assert row["f_rest_2"] == float(written.sh[1, 3, 0]) and row["f_rest_3"] == float(written.sh[1, 1, 1])


def test_two_scales_are_those_of_flat_gaussians(tmp_path: Path) -> None:
    written = cloud()
    columns = read_columns(write_splats(written, tmp_path / "three.ply"))
    columns.pop("scale_2")
    (tmp_path / "two.ply").write_bytes(ply_bytes(columns))
    read = read_splats(tmp_path / "two.ply")
    torch.testing.assert_close(read.scales[:, :2], written.scales[:, :2])
    torch.testing.assert_close(read.scales[:, 2], torch.full((6,), FLAT))


def test_full_and_empty_opacities_stay_finite(tmp_path: Path) -> None:
    written = cloud(n=2).replace(opacities=torch.tensor([0.0, 1.0]))
    read = read_splats(write_splats(written, tmp_path / "splats.ply"))
    torch.testing.assert_close(read.opacities, torch.tensor([0.0, 1.0]), rtol=0.0, atol=1e-5)


def test_nothing_and_not_a_number_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="nothing to write"):
        write_splats(cloud(n=0), tmp_path / "none.ply")
    broken = cloud()
    broken.means[0, 0] = torch.nan
    with pytest.raises(RunFailed, match="not finite"):
        write_splats(broken, tmp_path / "nan.ply")
    assert list(tmp_path.iterdir()) == []


def stored(tmp_path: Path, leave_out: tuple[str, ...] = (), **values: float) -> Path:
    columns = dict(read_columns(write_splats(cloud(degree=1), tmp_path / "whole.ply")))
    for name, value in values.items():
        columns[name] = columns[name].copy()
        columns[name][0] = value
    path = tmp_path / "spoiled.ply"
    path.write_bytes(ply_bytes({name: one for name, one in columns.items() if name not in leave_out}))
    return path


def test_missing_fields_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lacks opacity, rot_3"):
        read_splats(stored(tmp_path, ("opacity", "rot_3")))
    with pytest.raises(UserError, match=r"8 fields f_rest"):
        read_splats(stored(tmp_path, ("f_rest_8",)))


def test_rows_that_are_not_finite_are_left_out_and_a_cut_file_is_refused(tmp_path: Path) -> None:
    path = stored(tmp_path, scale_0=float("nan"))
    assert read_splats(path).n == 5
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="ends early"):
        read_splats(path)
