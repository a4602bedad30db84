import pytest
import torch

from maquette.core.errors import ConfigError
from maquette.kernels.composite import composite, importance_resample
from maquette.ops.rays import pack_counts


def samples(counts: list[int], channels: int = 3, density: float = 4.0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(len(counts))
    total = sum(counts)
    sigma = torch.rand(total, generator=generator) * density
    values = torch.randn(total, channels, generator=generator)
    t_starts = torch.rand(total, generator=generator) * 3.0
    t_ends = t_starts + 0.05 + 0.1 * torch.rand(total, generator=generator)
    return sigma, values, t_starts, t_ends, pack_counts(torch.tensor(counts))


@pytest.mark.parametrize("channels", [1, 3, 7])
@pytest.mark.parametrize("counts", [[9], [5, 0, 17], [0, 0, 3, 40, 1, 0]])
def test_values_and_gradients_equal_the_twin(twins, counts, channels):
    sigma, values, *rest = samples(counts, channels)
    sigma64, values64 = sigma.double().requires_grad_(), values.double().requires_grad_()
    sigma.requires_grad_(), values.requires_grad_()
    got = composite(sigma, values, *rest, early_stop_eps=0.0)
    wanted = twins.composite(sigma64, values64, rest[0].double(), rest[1].double(), rest[2])
    generator = torch.Generator().manual_seed(5)
    incoming = [torch.randn(out.shape, generator=generator) for out in got]
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5)
    grads = torch.autograd.grad(got, [sigma, values], incoming)
    wanted_grads = torch.autograd.grad(wanted, [sigma64, values64], [grad.double() for grad in incoming])
    for one, other in zip(grads, wanted_grads, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("which", range(4))
def test_each_output_alone_has_a_gradient(twins, which):
    sigma, values, *rest = samples([4, 6])
    sigma64 = sigma.double().requires_grad_()
    sigma.requires_grad_()
    got = composite(sigma, values, *rest)[which].pow(2).sum()
    wanted = twins.composite(sigma64, values.double(), rest[0].double(), rest[1].double(), rest[2])
    wanted = wanted[which].pow(2).sum()
    (grad,), (wanted_grad,) = torch.autograd.grad(got, sigma), torch.autograd.grad(wanted, sigma64)
    torch.testing.assert_close(grad.double(), wanted_grad, rtol=1e-4, atol=1e-5)


def test_thin_samples_keep_their_digits(twins):
    _, values, t_starts, t_ends, packed = samples([50])
    sigma = torch.full((50,), 1e-6)
    wanted = twins.composite(sigma.double(), values.double(), t_starts.double(), t_ends.double(), packed)
    got = composite(sigma, values, t_starts, t_ends, packed)
    torch.testing.assert_close(got[3].double(), wanted[3], rtol=1e-5, atol=0.0)


def test_early_stop_leaves_the_rest_dark(twins):
    sigma, values, *rest = samples([200, 30], density=40.0)
    sigma.requires_grad_()
    got = composite(sigma, values, *rest, early_stop_eps=1e-2)
    wanted = twins.composite(sigma, values, *rest, early_stop_eps=1e-2)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    (grad,) = torch.autograd.grad(got[0].sum(), sigma)
    dark = got[3] == 0
    assert 100 < dark.sum() < 230 and grad[dark].eq(0).all()
    assert got[1][0] > 0.99


def test_weights_of_a_ray_sum_to_its_opacity():
    *inputs, packed = samples([13, 4])
    _, opacity, _, weights = composite(*inputs, packed)
    torch.testing.assert_close(torch.stack([part.sum() for part in weights.split([13, 4])]), opacity)


def test_batching_is_stacking():
    sigma, values, t_starts, t_ends, packed = samples([7, 11, 2])
    together = composite(sigma, values, t_starts, t_ends, packed)[0]
    parts = zip(*(tensor.split([7, 11, 2]) for tensor in (sigma, values, t_starts, t_ends)), strict=True)
    alone = [composite(*part, pack_counts(torch.tensor([len(part[0])])))[0] for part in parts]
    assert torch.equal(together, torch.cat(alone))


def test_no_samples_and_no_rays():
    sigma, values = torch.empty(0, requires_grad=True), torch.empty(0, 3, requires_grad=True)
    for rays in (0, 4):
        out = composite(sigma, values, torch.empty(0), torch.empty(0), torch.zeros(rays, 2))
        assert [tuple(part.shape) for part in out] == [(rays, 3), (rays,), (rays,), (0,)]
        assert torch.autograd.grad(out[0].sum() + out[3].sum(), values)[0].shape == (0, 3)


def test_inputs_that_are_not_contiguous():
    sigma, values, *rest = samples([7, 11])
    got = composite(torch.stack([sigma, sigma], -1)[:, 0], values.t().contiguous().t(), *rest)
    for one, other in zip(got, composite(sigma, values, *rest), strict=True):
        assert torch.equal(one, other)


def test_bytes_do_not_depend_on_the_number_of_threads(set_threads):
    sigma, values, *rest = samples([3, 8, 0, 5] * 500)
    sigma.requires_grad_()
    results = []
    for threads in (1, 3):
        set_threads(threads)
        out = composite(sigma, values, *rest)
        results.append([*out, *torch.autograd.grad(sum(part.sum() for part in out), sigma)])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_shapes_that_do_not_fit_are_refused():
    sigma, values, *rest = samples([7])
    with pytest.raises(ConfigError):
        composite(sigma[:-1], values, *rest)
    with pytest.raises(ConfigError):
        importance_resample(torch.rand(2, 4), torch.rand(2, 4), 3, None)


@pytest.mark.parametrize("rays", [1, 3])
def test_resampling_equals_the_twin(twins, rays):
    generator = torch.Generator().manual_seed(rays)
    bins = torch.rand(rays, 13, generator=generator).sort(-1).values
    weights = torch.rand(rays, 12, generator=generator) * (torch.rand(rays, 12, generator=generator) > 0.5)
    got = importance_resample(bins, weights, 20, None)
    torch.testing.assert_close(got.double(), twins.resample(bins, weights, 20), rtol=1e-3, atol=2e-4)


def test_resampling_goes_where_the_weight_is():
    bins = torch.linspace(0.0, 1.0, 11).expand(3, 11)
    weights = torch.zeros(3, 10)
    weights[0, 4] = weights[1, 9] = 1.0
    edges = importance_resample(bins, weights, 64, key=5)
    assert edges.shape == (3, 65) and edges.diff(dim=-1).ge(0).all()
    assert (edges[0] > 0.399).all() and (edges[0] < 0.501).all() and (edges[1] > 0.899).all()
    torch.testing.assert_close(edges[2], torch.linspace(0.0, 1.0, 65), rtol=0, atol=0.02)


def test_resampling_depends_on_the_key():
    bins, weights = torch.linspace(0.0, 1.0, 9).expand(2, 9), torch.ones(2, 8)
    one, again, other = (importance_resample(bins, weights, 16, key) for key in (7, 7, 8))
    assert torch.equal(one, again) and not torch.equal(one, other) and not torch.equal(one[0], one[1])
