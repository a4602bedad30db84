import torch

from maquette.ops.rays import exclusive_sum, intersect_box, pack, pack_counts, visible_samples

BOX = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
INDICES = torch.tensor([0, 0, 0, 2, 2])


def test_box_intersection():
    origins = torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.0, 0.0], [3.0, 2.0, 0.0]])
    directions = torch.tensor([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]])
    entry, leave = intersect_box(origins, directions, BOX)
    torch.testing.assert_close(entry[:2], torch.tensor([2.0, 0.0]))
    torch.testing.assert_close(leave[:2], torch.tensor([4.0, 1.0]))
    assert leave[2] <= entry[2], "a miss"


def test_pack_counts_rays_without_samples():
    assert pack(INDICES, 4).tolist() == [[0, 3], [3, 0], [3, 2], [5, 0]]
    assert pack_counts(torch.tensor([3, 0, 2, 0])).tolist() == pack(INDICES, 4).tolist()


def test_exclusive_sum_starts_anew_on_each_ray():
    values = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    got = exclusive_sum(values, pack(INDICES, 4), INDICES)
    assert got.tolist() == [0.0, 1.0, 3.0, 0.0, 4.0]


def test_visible_samples_drops_the_transparent_and_the_hidden():
    sigma = torch.tensor([0.0, 50.0, 50.0, 1e-4, 3.0])
    keep = visible_samples(sigma, torch.ones(5), pack(INDICES, 4), INDICES, 0.01, 1e-4)
    assert keep.tolist() == [False, True, False, False, True]
