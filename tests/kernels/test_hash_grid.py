import pytest
import torch
import torch.nn.functional as F

from maquette.core.errors import ConfigError
from maquette.kernels.hash_grid import HashGridSpec, hash_encode

SPEC = HashGridSpec(n_levels=5, log2_hashmap_size=9, base_resolution=4, per_level_scale=1.7)


def make(spec: HashGridSpec, points: int = 257) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(points, 3, generator=generator)
    table = torch.randn(spec.n_rows, spec.n_features, generator=generator)
    return x.requires_grad_(), table.requires_grad_()


def doubles(*tensors: torch.Tensor) -> list[torch.Tensor]:
    return [tensor.detach().double().requires_grad_() for tensor in tensors]


def assert_same_direction(got: torch.Tensor, wanted: torch.Tensor) -> None:
    assert F.cosine_similarity(got.double().flatten(), wanted.flatten(), dim=0) > 0.999999
    torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


def test_spec_has_dense_and_hashed_levels():
    assert SPEC.resolutions == (4, 6, 11, 19, 33)
    assert SPEC.offsets == (0, 128, 472, 984, 1496, 2008)
    assert (SPEC.n_rows, SPEC.output_dim) == (2008, 10)


def test_default_spec_reaches_the_papers_finest_resolution():
    assert HashGridSpec().resolutions[0] == 16
    assert HashGridSpec().resolutions[-1] == 4096


@pytest.mark.parametrize("features", [1, 2, 4, 8])
def test_values_and_gradients_equal_the_twin(twins, features):
    spec = HashGridSpec(
        n_levels=4, n_features=features, log2_hashmap_size=9, base_resolution=5, per_level_scale=2
    )
    x, table = make(spec)
    x64, table64 = doubles(x, table)
    out, wanted = hash_encode(x, table, spec), twins.hash_encode(x64, table64, spec)
    torch.testing.assert_close(out.double(), wanted, rtol=1e-4, atol=1e-4)
    incoming = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    out.backward(incoming)
    wanted.backward(incoming.double())
    assert_same_direction(table.grad, table64.grad)
    assert_same_direction(x.grad, x64.grad)


def test_second_order_equals_the_twin(twins):
    x, table = make(SPEC)
    weight = torch.randn(SPEC.output_dim, generator=torch.Generator().manual_seed(2)).requires_grad_()
    inputs64 = doubles(x, table, weight)

    def slope_loss(encode, x, table, weight):
        (normal,) = torch.autograd.grad((encode(x, table, SPEC).sin() * weight).sum(), x, create_graph=True)
        return (normal * torch.linspace(-1.0, 2.0, 3, dtype=x.dtype)).sum(-1).pow(2).mean()

    got = torch.autograd.grad(slope_loss(hash_encode, x, table, weight), [x, table, weight])
    wanted = torch.autograd.grad(slope_loss(twins.hash_encode, *inputs64), inputs64)
    for one, other in zip(got, wanted, strict=True):
        assert_same_direction(one, other)


def test_gradient_of_the_table_gradient_equals_the_twin(twins):
    x, table = make(SPEC, points=40)
    incoming = torch.randn(40, SPEC.output_dim, generator=torch.Generator().manual_seed(4)).requires_grad_()
    inputs64 = doubles(x, table, incoming)

    def energy(encode, x, table, incoming):
        (grad,) = torch.autograd.grad(encode(x, table, SPEC), table, incoming, create_graph=True)
        return grad.pow(2).sum()

    got = torch.autograd.grad(energy(hash_encode, x, table, incoming), [x, incoming])
    wanted = torch.autograd.grad(energy(twins.hash_encode, *inputs64), [inputs64[0], inputs64[2]])
    for one, other in zip(got, wanted, strict=True):
        assert_same_direction(one, other)


@pytest.mark.parametrize("active", [0, 1, 3])
def test_masked_levels_give_zeros_and_get_no_gradient(twins, active):
    x, table = make(SPEC)
    out = hash_encode(x, table, SPEC, active_levels=active)
    torch.testing.assert_close(out, twins.hash_encode(x, table, SPEC, active))
    out.sum().backward()
    assert out[:, active * SPEC.n_features :].eq(0).all()
    assert table.grad[SPEC.offsets[active] :].eq(0).all()
    assert active == 0 or table.grad[: SPEC.offsets[active]].ne(0).any()


def test_normals_do_not_pay_for_the_table(monkeypatch):
    x, table = make(SPEC)
    out = hash_encode(x, table, SPEC)
    monkeypatch.setattr("maquette.kernels.hash_grid.scatter_kernel", None)
    (normal,) = torch.autograd.grad(out.sum(), x)
    assert normal.abs().sum() > 0


def test_normals_only_trains_the_table_alike_and_leaves_positions_alone():
    results = []
    for normals_only in (False, True):
        x, table = make(SPEC)
        out = hash_encode(x, table, SPEC, normals_only=normals_only)
        (normal,) = torch.autograd.grad(out.sin().sum(), x, create_graph=True)
        (normal.square().sum() + out.square().sum()).backward()
        results.append((normal, table.grad, x.grad))
    (normal, to_table, to_x), (same_normal, same_to_table, nothing) = results
    assert torch.equal(normal, same_normal) and torch.equal(to_table, same_to_table)
    assert to_x.abs().sum() > 0 and nothing is None


def test_bytes_do_not_depend_on_the_number_of_threads(set_threads):
    x, table = make(SPEC, points=3001)
    results = []
    for threads in (1, 3):
        set_threads(threads)
        out = hash_encode(x, table, SPEC)
        grads = torch.autograd.grad(out.pow(2).sum(), [x, table], create_graph=True)
        second = torch.autograd.grad(grads[0].pow(2).sum(), [x, table])
        results.append([out, *grads, *second])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_rows_do_not_depend_on_the_batch():
    x, table = make(SPEC, points=99)
    together = hash_encode(x, table, SPEC)
    alone = torch.cat([hash_encode(part, table, SPEC) for part in x.split(33)])
    assert torch.equal(together, alone)


def test_borders_and_positions_outside(twins):
    _, table = make(SPEC)
    x = torch.tensor([[0.0, 0, 0], [1, 1, 1], [1.5, 0.3, -0.2], [1, 0.3, 0]], requires_grad=True)
    out = hash_encode(x, table, SPEC)
    torch.testing.assert_close(out[2], out[3])
    torch.testing.assert_close(out, twins.hash_encode(x, table, SPEC), rtol=1e-4, atol=1e-4)
    (grad,) = torch.autograd.grad(out[2].sum(), x)
    assert grad[2, 0] == 0 and grad[2, 2] == 0 and grad[2, 1] != 0


def test_a_position_that_is_no_number_stays_in_the_table():
    _, table = make(SPEC)
    x = torch.tensor([[float("nan"), 0.5, float("inf")]])
    hash_encode(x, table, SPEC).sum().backward()
    assert table.grad.shape == table.shape


def test_no_points():
    _, table = make(SPEC)
    x = torch.empty(0, 3, requires_grad=True)
    out = hash_encode(x, table, SPEC)
    grads = torch.autograd.grad(out.sum(), [x, table], create_graph=True)
    assert out.shape == (0, SPEC.output_dim)
    assert grads[0].shape == (0, 3) and grads[1].eq(0).all()


def test_tensors_that_are_not_contiguous():
    x, table = make(SPEC)
    strided = torch.stack([x, x], -1)[..., 0].detach().requires_grad_()
    assert not strided.detach().is_contiguous()
    columns = table.detach().t().contiguous().t().requires_grad_()
    incoming = torch.randn(SPEC.output_dim, len(x)).t()
    got = torch.autograd.grad(hash_encode(strided, columns, SPEC), [strided, columns], incoming)
    wanted = torch.autograd.grad(hash_encode(x, table, SPEC), [x, table], incoming.contiguous())
    assert all(torch.equal(one, other) for one, other in zip(got, wanted, strict=True))


def test_shapes_that_do_not_fit_are_refused():
    x, table = make(SPEC)
    with pytest.raises(ConfigError):
        hash_encode(x[:, :2], table, SPEC)
    with pytest.raises(ConfigError):
        hash_encode(x, table[:-1], SPEC)
    with pytest.raises(ConfigError):
        HashGridSpec(n_levels=0)
