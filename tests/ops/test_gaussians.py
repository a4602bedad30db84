import math

import pytest
import torch

from maquette.ops.gaussians import (
    FLAT,
    Gaussians,
    colors_to_sh,
    covariances,
    normals_of_points,
    peak_densities,
    points_of_depth,
    relocated,
    rotation_matrices,
    sh_to_colors,
    spacing,
    view_rays,
)
from maquette.ops.transforms import gl_to_cv


def cloud(n: int = 5, degree: int = 1) -> Gaussians:
    return Gaussians(
        means=torch.randn(n, 3),
        rotations=torch.nn.functional.normalize(torch.randn(n, 4), dim=-1),
        scales=torch.rand(n, 3) * 0.1 + 0.01,
        opacities=torch.rand(n),
        sh=torch.randn(n, (degree + 1) ** 2, 3),
    )


def test_rows_and_degree():
    gaussians = cloud(degree=2)
    assert (gaussians.n, gaussians.sh_degree, gaussians[1:3].n) == (5, 2, 2)
    assert torch.equal(gaussians[torch.tensor([3])].means[0], gaussians.means[3])
    assert gaussians.to("cpu").replace(opacities=torch.ones(5)).opacities.sum() == 5


def test_quaternions_turn_as_they_should():
    half = math.sqrt(0.5)
    about_z = rotation_matrices(torch.tensor([[2 * half, 0.0, 0.0, 2 * half]]))[0]
    torch.testing.assert_close(about_z @ torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]))
    matrices = rotation_matrices(torch.randn(4, 4))
    torch.testing.assert_close(matrices @ matrices.mT, torch.eye(3).expand(4, 3, 3))
    torch.testing.assert_close(torch.linalg.det(matrices), torch.ones(4))


def test_covariance_has_the_squared_scales_as_eigenvalues():
    gaussians = cloud()
    found = torch.linalg.eigvalsh(covariances(gaussians.rotations, gaussians.scales))
    torch.testing.assert_close(found, gaussians.scales.square().sort(dim=-1).values, rtol=1e-4, atol=1e-7)


def test_colors_and_coefficients():
    colors = torch.rand(4, 3)
    torch.testing.assert_close(sh_to_colors(colors_to_sh(colors)), colors)


def test_ray_through_the_middle_is_stopped_as_by_the_splat():
    opacity, width = torch.tensor([0.2, 0.9]), torch.tensor([0.1, 0.03])
    peak = peak_densities(opacity, width[:, None].expand(2, 3))
    t = torch.linspace(-1.0, 1.0, 20001)
    depth = (peak[:, None] * torch.exp(-0.5 * (t / width[:, None]).square())).sum(dim=1) * (t[1] - t[0])
    torch.testing.assert_close(1 - torch.exp(-depth), opacity, rtol=1e-4, atol=1e-4)


def test_ray_across_a_flat_one_is_stopped_as_by_the_splat():
    opacity, thin = torch.tensor([0.2, 0.9]), torch.tensor([[0.1, 0.2, FLAT], [FLAT / 2, 0.3, 0.3]])
    depth = peak_densities(opacity, thin) * math.sqrt(2 * math.pi) * thin.amin(dim=-1)
    torch.testing.assert_close(1 - torch.exp(-depth), opacity)


def test_density_has_no_jump_between_flat_ones_and_bodies():
    """Thinner and thinner ones stop the light across their plane at most a little more or less."""
    thickness = torch.logspace(math.log10(FLAT), -1.0, 2000)
    scales = torch.stack(
        [thickness.new_full((2000,), 0.05), thickness.new_full((2000,), 0.2), thickness], dim=-1
    )
    peaks = peak_densities(torch.full((2000,), 0.8), scales)
    across = 1 - torch.exp(-peaks * math.sqrt(2 * math.pi) * thickness)
    torch.testing.assert_close(across[thickness < 1e-4], torch.full((int((thickness < 1e-4).sum()),), 0.8))
    body = thickness > 2e-3
    mean = scales[body].log().mean(dim=-1).exp()
    assert torch.equal(peaks[body], -torch.log1p(torch.tensor(-0.8)) / (math.sqrt(2.0 * math.pi) * mean))
    steps = across[1:] / across[:-1]
    assert 0.9 < steps.min() and steps.max() < 1.02, "no jump"


def test_spacing_of_a_lattice():
    axis = torch.arange(4.0) * 0.5
    points = torch.cartesian_prod(axis, axis, axis)
    torch.testing.assert_close(spacing(points, chunk=10), torch.full((64,), 0.5))
    assert torch.isfinite(spacing(points[:1])).all() and len(spacing(points[:0])) == 0


def test_copies_of_a_gaussian_look_like_it():
    """Composited along a ray through the middle they have its opacity; one copy changes nothing."""
    opacity, scales = torch.tensor([0.7, 0.7, 0.3]), torch.full((3, 3), 0.05)
    copies = torch.tensor([1, 3, 2])
    one, size = relocated(opacity, scales, copies)
    torch.testing.assert_close(1 - (1 - one).pow(copies), opacity)
    assert one[0] == opacity[0] and size[0, 0] == pytest.approx(0.05) and bool((size[1:] < 0.05).all())
    x = torch.linspace(-0.4, 0.4, 4001)
    for row in range(3):
        light = 1 - (1 - one[row] * torch.exp(-0.5 * (x / size[row, 0]).square())).pow(copies[row])
        whole = opacity[row] * torch.exp(-0.5 * (x / 0.05).square())
        torch.testing.assert_close(light.sum(), whole.sum(), rtol=1e-3, atol=0.0)
    assert relocated(torch.zeros(0), torch.zeros(0, 3), copies[:0])[0].shape == (0,)


def test_points_and_normals_of_a_plane_seen_at_an_angle():
    """A picture of 5 x 8 pixels, the principal point off its middle, of the plane x = 0 from (2, 1, 0)."""
    intrinsics = torch.tensor([[[6.0, 0.0, 3.0], [0.0, 7.0, 2.0], [0.0, 0.0, 1.0]]])
    c2w = torch.tensor([[[0.0, 0.0, 1.0, 2.0], [1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0], [0, 0, 0, 1.0]]])
    camera = gl_to_cv(c2w)
    rays = view_rays(intrinsics, 5, 8) @ camera[:, None, :3, :3].mT
    depth = -2.0 / rays[..., :1]
    points = points_of_depth(depth, intrinsics, camera)
    torch.testing.assert_close(points[..., 0], torch.zeros(1, 5, 8), rtol=0.0, atol=1e-5)
    normals = normals_of_points(points, c2w[:, :3, 3])
    expected = torch.tensor([1.0, 0.0, 0.0]).expand(1, 5, 8, 3)
    torch.testing.assert_close(normals, expected, rtol=0.0, atol=1e-4)
    assert torch.isfinite(normals_of_points(points[:, :1, :1], c2w[:, :3, 3])).all()
