import pytest
import torch

from maquette.core.errors import ConfigError
from maquette.core.output import MappingOutput
from maquette.ops.mesh import Mesh
from maquette.systems.shape_losses import MESH_LOSSES, SHAPE_LOSSES, VOLUME_LOSSES

VALUES = {
    "weights": torch.rand(5, 1),
    "t_dirs": torch.rand(5, 3),
    "normal": torch.rand(5, 3),
    "opacity": torch.full((1, 2, 2, 1), 0.7),
    "z_variance": torch.full((1, 2, 2, 1), 0.1),
    "sdf_grad": torch.rand(5, 3),
    "mesh": Mesh(torch.eye(3), torch.tensor([[0, 1, 2]])),
}


@pytest.mark.parametrize("name", SHAPE_LOSSES)
def test_each_loss_reads_what_it_says_and_nothing_else(name):
    loss = SHAPE_LOSSES[name]
    value = loss.of(name, MappingOutput(extras={key: VALUES[key] for key in loss.needs}), 1.0)
    assert value.shape == () and torch.isfinite(value)


@pytest.mark.parametrize("name", SHAPE_LOSSES)
def test_what_is_absent_is_named(name):
    with pytest.raises(ConfigError, match=rf"system\.loss\.lambda_{name}") as caught:
        SHAPE_LOSSES[name].of(name, MappingOutput(), [0, 1.0, 2.0, 10])
    assert all(key in caught.value.expected for key in SHAPE_LOSSES[name].needs) and caught.value.hint


def test_groups_are_the_whole():
    assert {*VOLUME_LOSSES, *MESH_LOSSES} == set(SHAPE_LOSSES)
