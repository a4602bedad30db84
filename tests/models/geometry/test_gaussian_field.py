import math

import pytest
import torch

from maquette.core.errors import RunFailed
from maquette.models.geometry import gaussian_field
from maquette.models.geometry.gaussian_field import REACH, Cells, GaussianField
from maquette.ops.gaussians import FLAT, Gaussians, covariances, peak_densities


def cloud(n: int = 20) -> Gaussians:
    return Gaussians(
        means=torch.rand(n, 3) - 0.5,
        rotations=torch.nn.functional.normalize(torch.randn(n, 4), dim=-1),
        scales=torch.rand(n, 3) * 0.1 + 0.02,
        opacities=torch.rand(n) * 0.8 + 0.1,
        sh=torch.randn(n, 1, 3),
    )


def dense(gaussians: Gaussians, points: torch.Tensor, blur: float) -> torch.Tensor:
    """Weight of each Gaussian at each point, straight from the definition."""
    spread = covariances(gaussians.rotations, gaussians.scales).double() + blur**2 * torch.eye(3)
    offset = (points[:, None] - gaussians.means).double()
    squared = torch.einsum("mni,nij,mnj->mn", offset, torch.linalg.inv(spread), offset)
    sharp = covariances(gaussians.rotations, gaussians.scales).double()
    fading = (torch.linalg.det(sharp) / torch.linalg.det(spread)).sqrt()
    peaks = peak_densities(gaussians.opacities, gaussians.scales) * fading
    return torch.where(squared <= REACH**2, peaks * torch.exp(-0.5 * squared), 0.0)


@pytest.mark.parametrize("blur", [0.0, 0.05])
def test_values_are_those_of_all_gaussians_everywhere(blur: float, monkeypatch) -> None:
    monkeypatch.setattr(gaussian_field, "PAIRS_AT_ONCE", 20)
    gaussians, points = cloud(), torch.rand(200, 3) * 1.4 - 0.7
    weights = dense(gaussians, points, blur)
    field = GaussianField(gaussians, blur)
    found = field.at(points)
    total = weights.sum(dim=1, keepdim=True)
    torch.testing.assert_close(found.density, total.float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(field.density_at(points), found.density)
    inside = (total > 1e-3)[:, 0]
    colors = (weights @ gaussians.colors.double() / total)[inside]
    torch.testing.assert_close(found.colors[inside], colors.float(), rtol=1e-3, atol=1e-4)
    assert inside.sum() > 30 and bool((~inside).any())


def test_normals_point_against_the_gradient() -> None:
    gaussians = cloud(3)
    points = (gaussians.means + 0.02).requires_grad_(True)
    weights = dense(gaussians, points, 0.0).sum()
    slope = torch.autograd.grad(weights, points)[0]
    normals = GaussianField(gaussians).at(points.detach(), normals=True).normals
    torch.testing.assert_close(normals, -torch.nn.functional.normalize(slope, dim=-1), rtol=1e-3, atol=1e-3)


def test_far_away_there_is_nothing_and_the_nearest_color() -> None:
    gaussians = cloud(4)
    points = gaussians.means[:2] * 100.0
    found = GaussianField(gaussians).at(points)
    nearest = torch.cdist(points, gaussians.means).argmin(dim=1)
    assert found.density.abs().sum() == 0 and torch.equal(found.colors, gaussians.colors[nearest])
    assert GaussianField(gaussians).density_at(points[:0]).shape == (0, 1)


def test_transparent_clouds_and_flat_gaussians_have_a_field() -> None:
    unseen = cloud(3).replace(opacities=torch.zeros(3))
    assert GaussianField(unseen).at(torch.zeros(2, 3)).density.tolist() == [[0.0], [0.0]]
    flat = cloud(1).replace(scales=torch.tensor([[0.1, 0.1, 0.0]]))
    assert torch.isfinite(GaussianField(flat, 0.02).at(flat.means).density).all()


def test_a_flat_gaussian_is_a_sheet_that_stops_as_much_light_as_its_splat() -> None:
    disc = cloud(1).replace(
        means=torch.zeros(1, 3),
        rotations=torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        scales=torch.tensor([[0.2, 0.2, FLAT]]),
        opacities=torch.tensor([0.8]),
    )
    z = torch.linspace(-0.2, 0.2, 4001)
    field = GaussianField(disc, blur=0.02)
    density = field.density_at(torch.stack([0.0 * z, 0.0 * z, z], dim=-1))[:, 0]
    stopped = 1.0 - math.exp(-float(density.sum() * (z[1] - z[0])) * (1 + 0.02**2 / 0.2**2))
    assert stopped == pytest.approx(0.8, abs=0.005)
    assert float(density[z.abs() > REACH * 0.0201].max()) == 0.0, "no thicker than the blur"


def test_blur_keeps_the_amount_of_matter() -> None:
    axis = torch.linspace(-1.0, 1.0, 41)
    points = torch.cartesian_prod(axis, axis, axis)
    one = cloud(1).replace(means=torch.zeros(1, 3), scales=torch.full((1, 3), 0.12))
    sharp, blurred = (GaussianField(one, blur).density_at(points).sum() for blur in (0.0, 0.1))
    assert float(blurred / sharp) == pytest.approx(1.0, rel=0.01)
    whole = float(sharp) * 0.05**3
    peak = float(peak_densities(one.opacities, one.scales)[0])
    assert whole == pytest.approx(peak * (2 * math.pi) ** 1.5 * 0.12**3 * 0.9707, rel=0.01)


def test_cells_grow_when_boxes_are_large(monkeypatch) -> None:
    monkeypatch.setattr(gaussian_field, "MOST_ENTRIES", 30)
    low = torch.rand(10, 3)
    cells = Cells(low, low + torch.tensor([0.01, 0.5, 2.0]))
    assert len(cells.members) <= 30
    visits = list(cells.visits(low + 0.005))
    pairs = {(row, box) for rows, boxes in visits for row in rows.tolist() for box in boxes.tolist()}
    assert {(i, i) for i in range(10)} <= pairs


@pytest.mark.parametrize("far", [1e3, 1e18])
def test_a_stray_gaussian_costs_no_memory(far: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian_field, "MOST_ENTRIES", 2000)
    gaussians, points = cloud(), torch.rand(50, 3) - 0.5
    gaussians.means[0] = torch.tensor([far, -far, far])
    found = GaussianField(gaussians)
    assert len(found.cells.counts) <= 2000
    expected = dense(gaussians, points, 0.0).sum(dim=1, keepdim=True)
    torch.testing.assert_close(found.density_at(points), expected.float(), rtol=1e-3, atol=1e-3)


def test_what_is_not_finite_is_left_out_of_the_field() -> None:
    gaussians, points = cloud(), torch.rand(30, 3) - 0.5
    expected = GaussianField(gaussians[4:]).at(points)
    gaussians.means[0, 1], gaussians.scales[1, 2] = math.nan, math.inf
    gaussians.opacities[2], gaussians.sh[3, 0, 0] = math.nan, math.inf
    found = GaussianField(gaussians).at(points)
    assert torch.equal(found.density, expected.density) and torch.equal(found.colors, expected.colors)
    with pytest.raises(RunFailed, match="finite"):
        GaussianField(gaussians[:4])


def test_mixed_precision_changes_no_value() -> None:
    gaussians, points = cloud(), torch.rand(30, 3) - 0.5
    expected = GaussianField(gaussians).at(points, normals=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        field = GaussianField(gaussians)
        found, density = field.at(points, normals=True), field.density_at(points)
    assert torch.equal(found.density, expected.density) and torch.equal(density, expected.density)
    assert torch.equal(found.colors, expected.colors) and torch.equal(found.normals, expected.normals)
