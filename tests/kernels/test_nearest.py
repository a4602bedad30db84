"""Nearest neighbours against a search over all pairs and against scipy's k-d tree."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from scipy.spatial import cKDTree

from maquette.core.errors import ConfigError
from maquette.kernels.nearest import chamfer, f_score, nearest

TWINS = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("distance_twins.py"))))


def cloud(n, seed=0, kind="ball"):
    points = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))
    if kind == "sphere":
        return torch.nn.functional.normalize(points, dim=-1)
    if kind == "line":
        return points * torch.tensor([1.0, 0.0, 0.0])
    if kind == "outlier":
        return torch.cat([points[1:], torch.full((1, 3), 1e4)]) if n > 1 else points
    return points


@pytest.mark.parametrize("kind", ["ball", "sphere", "line", "outlier"])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 1), (50, 7), (300, 8), (400, 9), (1000, 2000)])
def test_nearest_is_that_of_a_search_over_all_pairs(kind, n, m):
    a, b = cloud(n, 1, kind), cloud(m, 2, kind)
    squared, index = nearest(a, b)
    expected, _ = TWINS.nearest(a.double(), b.double())
    torch.testing.assert_close(squared.double(), expected, rtol=1e-5, atol=1e-12)
    torch.testing.assert_close((a - b[index]).square().sum(-1), squared)


def test_nearest_is_that_of_a_kd_tree():
    a, b = cloud(5000, 3), cloud(4000, 4)
    squared, index = nearest(a, b)
    distance, which = cKDTree(b.numpy()).query(a.numpy())
    torch.testing.assert_close(squared.double().sqrt(), torch.from_numpy(distance), rtol=1e-5, atol=1e-7)
    assert (index == torch.from_numpy(which)).double().mean() > 0.999, "ties may differ"


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_nothing(set_threads, threads):
    a, b = cloud(3000, 5), cloud(700, 6)
    set_threads(1)
    alone = nearest(a, b)[1]
    set_threads(threads)
    assert torch.equal(nearest(a, b)[1], alone)


@pytest.mark.parametrize("copies", [1, 3])
def test_chamfer_and_its_gradients_are_those_of_the_twin(copies):
    a, b = cloud(100 * copies, 7), cloud(130 * copies, 8)
    ours = [a.requires_grad_(), b.requires_grad_()]
    theirs = [one.detach().double().requires_grad_() for one in ours]
    value, expected = chamfer(*ours), TWINS.chamfer(*theirs)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    grads = torch.autograd.grad(value, ours)
    for grad, wanted in zip(grads, torch.autograd.grad(expected, theirs), strict=True):
        torch.testing.assert_close(grad.double(), wanted, rtol=1e-4, atol=1e-8)


def test_squared_distances_have_the_gradient_of_both_clouds():
    a, b = cloud(40, 9).double().requires_grad_(), cloud(30, 10).double().requires_grad_()
    squared, index = nearest(a, b)
    to_a, to_b = torch.autograd.grad(squared.sum(), [a, b])
    torch.testing.assert_close(to_a, 2 * (a - b[index]).detach())
    torch.testing.assert_close(to_b.sum(0), -to_a.sum(0))


def test_chamfer_of_a_cloud_with_itself_is_zero_with_a_finite_gradient():
    a = cloud(50).requires_grad_()
    value = chamfer(a, a.detach())
    value.backward()
    assert value.item() == 0.0 and torch.equal(a.grad, torch.zeros_like(a))


def test_chamfer_of_a_moved_plane_is_the_way_it_moved():
    x, y = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij")
    plane = torch.stack([x, y, torch.zeros_like(x)], -1).reshape(-1, 3)
    assert chamfer(plane, plane + torch.tensor([0.0, 0.0, 0.25])).item() == pytest.approx(0.25)


def test_f_score_is_the_harmonic_mean_of_precision_and_recall():
    a = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [9, 0, 0]])
    b = torch.tensor([[0.0, 0, 0.05], [1, 0, 0]])
    precision, recall = 0.5, 1.0
    assert f_score(a, b, 0.1) == pytest.approx(2 * precision * recall / (precision + recall))
    assert f_score(a, b + 50, 0.1) == 0.0
    assert f_score(a, a, 0.0) == 1.0


def test_points_in_one_place_find_one_of_them():
    squared, index = nearest(torch.ones(4, 3), torch.ones(1000, 3))
    assert torch.equal(squared, torch.zeros(4)) and bool(((index >= 0) & (index < 1000)).all())


def test_no_queries_give_no_answers():
    squared, index = nearest(torch.zeros(0, 3), cloud(5))
    assert squared.shape == index.shape == (0,)


@pytest.mark.parametrize(
    ("call", "key"),
    [
        (lambda: nearest(cloud(3), torch.zeros(0, 3)), "nearest.b"),
        (lambda: nearest(cloud(3), cloud(3) * torch.nan), "nearest.b"),
        (lambda: nearest(cloud(3) * torch.inf, cloud(3)), "nearest.a"),
        (lambda: chamfer(torch.zeros(0, 3), cloud(3)), "chamfer.a"),
        (lambda: f_score(torch.zeros(0, 3), cloud(3), 0.1), "f_score.a"),
        (lambda: f_score(cloud(3), cloud(3), -1.0), "f_score.tolerance"),
    ],
)
def test_what_has_no_answer_is_refused(call, key):
    with pytest.raises(ConfigError) as caught:
        call()
    assert caught.value.key == key
