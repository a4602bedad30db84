import math

import pytest
import torch

from maquette.ops.losses import (
    eikonal,
    laplacian_smoothness,
    normal_consistency,
    opaque,
    orient,
    sparsity,
    total_variation,
    z_variance,
)
from maquette.ops.mesh import Mesh


def octahedron() -> Mesh:
    vertices = torch.cat([torch.eye(3), -torch.eye(3)])
    faces = [[0, 1, 2], [1, 3, 2], [3, 4, 2], [4, 0, 2], [1, 0, 5], [3, 1, 5], [4, 3, 5], [0, 4, 5]]
    return Mesh(vertices, torch.tensor(faces))


def nothing() -> Mesh:
    return Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))


def test_orient_by_hand():
    weights = torch.tensor([0.5, 0.5, 1.0], requires_grad=True)
    normal = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [0.0, 0.8, 0.6]])
    directions = torch.tensor([[0.0, 0.0, 1.0]]).expand(3, 3)
    loss = orient(weights, normal, directions, opacity=torch.tensor([1.0, 0.2, 0.0]))
    assert loss.item() == pytest.approx((0.5 + 0.36) / 2)
    assert not loss.requires_grad, "weights are held fixed"


def test_orient_trains_normals_and_accepts_columns():
    normal = torch.tensor([[0.0, 0.0, 1.0]], requires_grad=True)
    orient(torch.ones(1, 1), normal, torch.tensor([[0.0, 0.0, 1.0]]), torch.ones(1, 4, 4, 1)).backward()
    torch.testing.assert_close(normal.grad, torch.tensor([[0.0, 0.0, 2.0]]) / 16)


def test_orient_of_an_empty_picture_is_zero():
    assert orient(torch.zeros(0), torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(4)).item() == 0.0


def test_sparsity_by_hand():
    assert sparsity(torch.tensor([0.0, 1.0])).item() == pytest.approx((0.1 + math.sqrt(1.01)) / 2)


def test_opaque_is_the_binary_entropy():
    assert opaque(torch.tensor([0.5])).item() == pytest.approx(math.log(2))
    ends = opaque(torch.tensor([0.0, 1.0]))
    assert ends.item() == pytest.approx(-(1e-3 * math.log(1e-3) + 0.999 * math.log(0.999)), rel=1e-4)


def test_opaque_in_half_precision_is_the_cross_entropy_of_the_opacity_with_itself():
    opacity = torch.rand(3, 5, 7, 1, generator=torch.Generator().manual_seed(0)).half()
    loss, inside = opaque(opacity), opacity.float().clamp(1e-3, 1 - 1e-3)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, torch.nn.functional.binary_cross_entropy(inside, inside))


def test_z_variance_counts_covered_rays_only():
    variance, opacity = torch.tensor([1.0, 3.0, 100.0]), torch.tensor([0.9, 0.6, 0.5])
    assert z_variance(variance, opacity).item() == pytest.approx(2.0)
    assert z_variance(variance, opacity * 0.1).item() == 0.0


def test_eikonal_by_hand():
    gradients = torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.6, 0.8], [0.0, 0.0, 0.5]])
    assert eikonal(gradients).item() == pytest.approx((4.0 + 0.0 + 0.25) / 3)
    assert eikonal(torch.zeros(0, 3)).item() == 0.0


def test_eikonal_has_a_gradient_where_the_field_is_flat():
    flat = torch.zeros(2, 3, requires_grad=True)
    eikonal(flat).backward()
    assert torch.isfinite(flat.grad).all()


def test_normal_consistency_by_hand():
    assert normal_consistency(octahedron()).item() == pytest.approx(1.0, abs=1e-6), "normals along the axes"
    plane = Mesh(
        torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]), torch.tensor([[0, 1, 2], [0, 2, 3]])
    )
    assert normal_consistency(plane).item() == pytest.approx(0.0, abs=1e-6)
    assert normal_consistency(nothing()).item() == 0.0


def test_laplacian_by_hand():
    # each vertex has four neighbours whose sum is zero: L v = 4 v
    assert laplacian_smoothness(octahedron()).item() == pytest.approx(4.0)
    assert laplacian_smoothness(nothing()).item() == 0.0


@pytest.mark.parametrize("loss", [normal_consistency, laplacian_smoothness])
def test_a_bump_is_pressed_down(loss):
    n = 5
    x, y = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    corner = (x * n + y)[:-1, :-1].reshape(-1)
    faces = torch.cat(
        [
            torch.stack([corner, corner + n, corner + n + 1], 1),
            torch.stack([corner, corner + n + 1, corner + 1], 1),
        ]
    )
    vertices = torch.stack([x, y, torch.zeros_like(x)], dim=-1).reshape(-1, 3).double()
    vertices[n * n // 2, 2] = 0.5
    vertices.requires_grad_(True)
    value = loss(Mesh(vertices, faces))
    value.backward()
    assert vertices.grad[n * n // 2, 2] > 0
    step = (vertices.detach() - 1e-3 * vertices.grad).requires_grad_(True)
    assert loss(Mesh(step, faces)) < value


def test_total_variation_by_hand():
    picture = torch.tensor([[0.0, 1.0, 3.0], [0.0, 1.0, 1.0]])[None, :, :, None]
    assert total_variation(picture).item() == pytest.approx(2 * ((0 + 0 + 4) / 3 + (1 + 4 + 1 + 0) / 4))
    assert total_variation(picture[:, :1, :1]).item() == 0.0
