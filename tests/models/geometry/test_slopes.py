"""Gradients by differences, in the middle of the box and at its faces."""

import pytest
import torch

from maquette.models.geometry.slopes import difference_slope

EPS, RADIUS = 0.01, 1.5


def field(points: torch.Tensor) -> torch.Tensor:
    """Curved, and not defined outside of the box."""
    assert bool((points.abs() <= RADIUS).all()), "asked outside of the box"
    x, y, z = points.unbind(dim=-1)
    return (torch.sin(x) + x * y**2 - 2.0 * torch.exp(0.5 * z) * y)[..., None]


def gradient(points: torch.Tensor) -> torch.Tensor:
    x, y, z = points.unbind(dim=-1)
    parts = [torch.cos(x) + y**2, 2.0 * x * y - 2.0 * torch.exp(0.5 * z), -torch.exp(0.5 * z) * y]
    return torch.stack(parts, dim=-1)


def drawn(n: int) -> torch.Tensor:
    draws = torch.rand(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (2.0 * draws - 1.0) * (RADIUS - EPS)


def near_faces(n: int) -> torch.Tensor:
    """Each coordinate within half a step of a face, or upon it."""
    inwards = 0.5 * EPS * drawn(n).abs() / RADIUS
    inwards[::3] = 0.0
    return drawn(n).sign() * (RADIUS - inwards)


@pytest.mark.parametrize("central", [False, True])
@pytest.mark.parametrize("place", [drawn, near_faces])
def test_slope_is_the_gradient_also_at_the_faces(place, central) -> None:
    points = place(300)
    points[100:200, 0] = 0.3  # near edges and corners, and near a single face
    points[150:250, 2] = -0.7
    found = difference_slope(field, points, field(points), EPS, RADIUS, central)
    one_sided = place is near_faces or not central
    error = (found - gradient(points)).abs().max()
    assert error < (4.0 * EPS if one_sided else 4.0 * EPS**2), "the error is a step, or its square"


@pytest.mark.parametrize("central", [False, True])
def test_slope_of_a_plane_is_exact_everywhere(central) -> None:
    direction = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    points = torch.cat([drawn(100), near_faces(100)]).reshape(20, 10, 3)
    plane = points @ direction
    found = difference_slope(
        lambda x: (x @ direction)[..., None], points, plane[..., None], EPS, RADIUS, central
    )
    torch.testing.assert_close(found, direction.expand_as(found), rtol=1e-9, atol=1e-9)


def test_points_keep_their_gradient() -> None:
    points = drawn(4).requires_grad_(True)
    value = points.square().sum(dim=-1, keepdim=True)
    slope = difference_slope(lambda x: x.square().sum(-1, keepdim=True), points, value, EPS, RADIUS, True)
    slope.sum().backward()
    torch.testing.assert_close(points.grad, torch.full_like(points, 2.0))


@pytest.mark.parametrize("central", [False, True])
def test_outside_of_the_cube_differences_look_inwards(central) -> None:
    points = torch.tensor([[1.8, -2.0, 0.3], [-1.6, 0.0, 4.0]], dtype=torch.float64)
    asked = []

    def curved(x: torch.Tensor) -> torch.Tensor:
        asked.append(x.abs().reshape(-1, 3))
        return x.pow(2).sum(dim=-1, keepdim=True)

    found = difference_slope(curved, points, curved(points), EPS, RADIUS, central)
    torch.testing.assert_close(found, 2.0 * points, atol=2.0 * EPS, rtol=0)
    outside = points.abs() > RADIUS
    most = torch.stack([one.reshape(2, -1, 3).amax(dim=1) for one in asked]).amax(dim=0)
    assert bool((most <= points.abs())[outside].all())
