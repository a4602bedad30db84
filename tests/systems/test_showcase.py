"""The files at the top of a run show the asset as it is, whatever frame it was exported in."""

from pathlib import Path

import pytest
import torch
import trimesh

from maquette.io.mesh import write_mesh
from maquette.ops.mesh import Mesh
from maquette.systems.showcase import Showcase, ShowcaseConfig

TALL = Mesh(
    torch.tensor([[0.0, 0, 0], [0.2, 0, 0], [0, 0.3, 0], [0, 0, 0.9]]),
    torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]),
)


@pytest.mark.parametrize(("up", "units"), [("z", "m"), ("y", "cm"), ("z", "in")])
def test_asset_at_the_top_is_upright_and_in_metres(tmp_path: Path, up: str, units: str) -> None:
    exported = write_mesh(TALL, tmp_path / "model.obj", up=up, units=units)
    small = ShowcaseConfig(views=1, view_size=8, frames=1, frame_size=16)
    files = Showcase(small).make(exported, tmp_path, up, units)
    assert [path.name for path in files] == ["mesh.glb", "turntable.mp4", "preview.png", "mesh.report.json"]
    extents = trimesh.load(files[0], force="mesh").extents  # of a GLB: y up, x to the side
    assert extents.tolist() == pytest.approx([0.3, 0.9, 0.2], abs=1e-4)
