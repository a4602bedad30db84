"""Meshes of implicit geometries by the differentiable methods; test_implicit_volume.py has marching cubes."""

import math

import pytest
import torch

from maquette.core.errors import RunFailed
from maquette.models.geometry.base import BaseImplicitGeometry
from maquette.models.geometry.lattices import lattice_for
from maquette.ops.mesh import component_labels, edges, volume

METHODS = ("mt", "flexicubes")


class Ball(BaseImplicitGeometry):
    """A signed distance whose radius, centre and offsets of nodes are parameters."""

    def configure(self, *args, **kwargs):
        super().configure()
        self.radius = torch.nn.Parameter(torch.tensor(0.5))
        self.centre = torch.nn.Parameter(torch.tensor([0.2, 0.0, 0.0]))
        self.offset = torch.nn.Parameter(torch.zeros(3))
        self.asked = 0

    def forward_field(self, points):
        self.asked += len(points)
        distance = (points - self.centre).norm(dim=-1, keepdim=True) - self.radius
        moves = self.cfg.isosurface_deformable_grid
        return distance, self.offset.expand_as(points) if moves else None

    def forward_level(self, field, threshold):
        return field - threshold

    def auto_threshold(self, field, box):
        assert field.shape == (64, 64, 64)
        return 0.0


def make(method="mt", cls=Ball, **cfg):
    settings = {"isosurface_threshold": 0.0, "isosurface_resolution": 40 if method == "mt" else 32}
    return cls({"isosurface_method": method, **settings, **cfg})


def is_watertight(mesh):
    return bool((edges(mesh)[1] == 2).all())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("coarse_to_fine", [True, False])
def test_isosurface_of_a_ball(method, coarse_to_fine):
    geometry = make(method, isosurface_coarse_to_fine=coarse_to_fine)
    with torch.no_grad():
        mesh = geometry.isosurface()
    assert is_watertight(mesh) and not mesh.vertices.requires_grad
    tolerance = 0.01 if coarse_to_fine else 0.03
    assert volume(mesh).item() == pytest.approx(4 / 3 * math.pi * 0.5**3, rel=tolerance)
    torch.testing.assert_close(mesh.vertices.mean(dim=0), geometry.centre.detach(), atol=0.01, rtol=0)
    assert mesh.extras["isosurface_threshold"] == 0.0


@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_those_of_the_ball(method):
    geometry = make(method, isosurface_deformable_grid=True)
    mesh = geometry.isosurface()
    grow, move = torch.autograd.grad(volume(mesh), (geometry.radius, geometry.centre), retain_graph=True)
    assert grow.item() == pytest.approx(4 * math.pi * 0.5**2, rel=0.02), "dV/dr is the area"
    assert move.abs().max() < 0.02
    (shift,) = torch.autograd.grad(mesh.vertices[:, 0].mean(), geometry.centre, retain_graph=True)
    assert shift[0].item() > 0.3 and shift[1:].abs().max() < 0.05
    (nudge,) = torch.autograd.grad(mesh.vertices.mean(dim=0).sum(), geometry.offset)
    assert (nudge > 0).all(), "nodes that move take the surface with them"


@pytest.mark.parametrize("method", METHODS)
def test_only_nodes_at_the_surface_are_asked_with_gradients(method):
    geometry = make(method, isosurface_coarse_to_fine=False)
    geometry.isosurface()
    nodes = len(lattice_for(method, geometry.cfg.isosurface_resolution, geometry.bbox.device).nodes)
    assert nodes < geometry.asked < 1.5 * nodes


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_surface_is_an_error_only_where_nothing_trains(method):
    geometry = make(method)
    with torch.no_grad():
        geometry.radius.fill_(-0.1)
        with pytest.raises(RunFailed, match="isosurface is empty"):
            geometry.isosurface()
    mesh = geometry.isosurface()
    assert mesh.n_faces == 0 and mesh.vertices.shape == (0, 3)
    mesh.vertices.sum().backward()
    assert geometry.radius.grad == 0


def test_a_field_that_is_not_finite_is_named():
    geometry = make()
    with torch.no_grad():
        geometry.radius.fill_(math.nan)
        with pytest.raises(RunFailed, match="not finite"):
            geometry.isosurface()


@pytest.mark.parametrize("method", METHODS)
def test_what_sticks_out_of_the_box_is_closed(method):
    geometry = make(method)
    with torch.no_grad():
        geometry.radius.fill_(1.2)
        mesh = geometry.isosurface()
    assert is_watertight(mesh) and mesh.vertices.abs().max() <= 1.0


def test_pieces_are_dropped_only_where_nothing_trains():
    class BallAndCrumb(Ball):
        def forward_field(self, points):
            crumb = (points + 0.7).norm(dim=-1, keepdim=True) - 0.12
            return torch.minimum(super().forward_field(points)[0], crumb), None

    geometry = make("mt", BallAndCrumb, isosurface_outlier_n_faces_threshold=0.2)
    assert component_labels(geometry.isosurface())[1] == 2
    with torch.no_grad():
        assert component_labels(geometry.isosurface())[1] == 1


def test_the_automatic_threshold_is_read_from_a_regular_grid():
    with torch.no_grad():
        assert make(isosurface_threshold="auto").isosurface().extras["isosurface_threshold"] == 0.0
