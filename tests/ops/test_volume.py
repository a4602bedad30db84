import math

import pytest
import torch

from maquette.ops.volume import alpha_composite, contract, near_border, stratified_edges, visible_level

BOX = torch.tensor([[-2.0, -2.0, -2.0], [2.0, 2.0, 2.0]])


def sphere_grid(n=40, radius=0.6):
    axis = torch.linspace(-1, 1, n)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).norm(dim=-1) < radius


def test_weights_of_a_homogeneous_medium_sum_to_beer_lambert():
    sigma, delta = torch.full((2, 50), 3.0), torch.full((2, 50), 0.02)
    weights = alpha_composite(sigma, delta)
    assert weights.sum(dim=-1).tolist() == pytest.approx([1 - math.exp(-3.0)] * 2)
    assert (weights[:, :-1] > weights[:, 1:]).all()


def test_the_box_fills_the_unit_cube():
    corners = torch.tensor([[-2.0, -2.0, -2.0], [2.0, 2.0, 2.0], [0.0, 1.0, -1.0]])
    expected = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.5, 0.75, 0.25]])
    torch.testing.assert_close(contract(corners, BOX), expected)


def test_unbounded_contraction_is_continuous_and_stays_inside():
    ray = torch.linspace(0.0, 1e4, 7)[:, None] * torch.tensor([1.0, 0.0, 0.0])
    inside = contract(ray, BOX, unbounded=True)
    assert (inside >= 0).all() and (inside <= 1).all()
    assert (inside[1:, 0] >= inside[:-1, 0]).all()
    border = contract(torch.tensor([[1.9999, 0, 0], [2.0001, 0, 0]]), BOX, unbounded=True)
    torch.testing.assert_close(border[0], border[1], atol=1e-4, rtol=0)


def test_edges_are_in_order_with_any_jitter():
    near, far = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.5])
    for jitter in (None, torch.tensor([0.0, 0.999])):
        edges = stratified_edges(near, far, 8, jitter)
        assert edges.shape == (2, 9)
        assert (edges.diff(dim=-1) > 0).all()
        assert edges[:, 0].tolist() == near.tolist() and edges[:, -1].tolist() == far.tolist()


def test_level_of_a_sharp_object_is_a_third_of_its_density():
    level, opacity = visible_level(sphere_grid().float() * 80.0, cell=0.05)
    assert level == pytest.approx(80.0 / 3)
    assert opacity == pytest.approx(1.0)


def test_level_ignores_a_fog_that_the_picture_does_not_show():
    field = torch.where(sphere_grid(), 80.0, 0.1)
    level, _ = visible_level(field, cell=0.05)
    assert 0.1 < level < 80.0


def test_level_of_a_soft_object_is_between_its_frontal_depth_and_its_outline():
    axis, width = torch.linspace(-1, 1, 64), 0.25
    distance = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).norm(dim=-1)
    density, cell = 20.0 * torch.exp(-0.5 * (distance / width) ** 2), 2 / 63
    level, _ = visible_level(density, cell)
    radius = width * math.sqrt(2 * math.log(20.0 / level))
    front = density[32, 32].cumsum(0) * cell > math.log(2)
    frontal_depth = -axis[front][0].item()
    covered = 1 - torch.exp(-density.sum(0) * cell) >= 0.5
    outline = math.sqrt(covered.sum().item() * cell**2 / math.pi)
    assert frontal_depth < radius < outline


def test_most_lines_that_are_opaque_meet_the_surface():
    generator = torch.Generator().manual_seed(0)
    density = 40.0 * sphere_grid() * torch.rand(40, 40, 40, generator=generator)
    level, _ = visible_level(density, cell=0.05)
    opaque = 1 - torch.exp(-density.sum(0) * 0.05) >= 0.5
    assert (density.amax(0) > level)[opaque].float().mean() > 0.99


def test_level_of_fog_is_inside_the_field():
    level, opacity = visible_level(sphere_grid().float() * 0.1, cell=0.05)
    assert level == pytest.approx(0.1 / 3)
    assert opacity < 0.5


@pytest.mark.parametrize("reach", [1, 2, 50])
def test_nodes_near_a_border_have_both_kinds_in_their_neighbourhood(reach):
    inside = sphere_grid(17)
    inside[2, 3, 4] = True
    near = near_border(inside, reach)
    for node in torch.randint(0, 17, (300, 3), generator=torch.Generator().manual_seed(0)).tolist():
        around = inside[tuple(slice(max(0, i - reach), i + reach + 1) for i in node)]
        assert near[tuple(node)] == (around.any() and not around.all())
