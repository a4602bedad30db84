import pytest
import torch

from maquette.core.random import RandomStreams
from maquette.diffusion import distillation, score


def normal(generator, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=generator, dtype=dtype)


@pytest.fixture(params=[1, 3])
def batch(request, seeded):
    shape = (request.param, 4, 2, 2)
    alpha_bar = torch.rand(request.param, generator=seeded, dtype=torch.float64) * 0.9 + 0.05
    return normal(seeded, *shape), normal(seeded, *shape), alpha_bar


def test_every_prediction_type_gives_back_the_noise(batch):
    x0, eps, alpha_bar = batch
    x_t = score.add_noise(x0, eps, alpha_bar)
    a = score.per_sample(alpha_bar, x0)
    v = a.sqrt() * eps - (1 - a).sqrt() * x0
    torch.testing.assert_close(score.eps_from_v(v, x_t, alpha_bar), eps)
    torch.testing.assert_close(score.eps_from_x0(x0, x_t, alpha_bar), eps)
    torch.testing.assert_close(score.predicted_x0(x_t, eps, alpha_bar), x0)


def test_ddim_with_the_true_noise_stays_on_the_line_between_picture_and_noise(batch):
    x0, eps, alpha_bar = batch
    lower = alpha_bar * 0.5
    moved = score.ddim_step(score.add_noise(x0, eps, alpha_bar), eps, alpha_bar, lower)
    torch.testing.assert_close(moved, score.add_noise(x0, eps, lower))


def test_guidance_scale_zero_ignores_the_text_and_one_is_the_model(batch):
    uncond, text, _ = batch
    assert torch.equal(score.classifier_free(uncond, text, 0.0), uncond)
    torch.testing.assert_close(score.classifier_free(uncond, text, 1.0), text)
    torch.testing.assert_close(score.classifier_free(uncond, text, 7.5), 7.5 * text - 6.5 * uncond)


def test_perpendicular_part_is_orthogonal_sample_by_sample(batch):
    x, to, _ = batch
    part = score.perpendicular(x, to)
    torch.testing.assert_close((part * to).sum((1, 2, 3)), torch.zeros(len(x), dtype=x.dtype))
    torch.testing.assert_close(score.perpendicular(to, to), torch.zeros_like(to))


def test_perp_neg_without_weights_is_classifier_free(batch):
    uncond, text, _ = batch
    negatives = torch.stack([text * 2, uncond - 1], dim=1)
    weights = torch.zeros(len(text), 2, dtype=text.dtype)
    got = score.perp_neg(uncond, text, negatives, weights, 7.5)
    torch.testing.assert_close(got, score.classifier_free(uncond, text, 7.5))


def test_perp_neg_ignores_a_negative_along_the_text(batch):
    uncond, text, _ = batch
    along = uncond + 3.0 * (text - uncond)
    weights = torch.full((len(text), 1), -2.0, dtype=text.dtype)
    got = score.perp_neg(uncond, text, along[:, None], weights, 7.5)
    torch.testing.assert_close(got, score.classifier_free(uncond, text, 7.5))


def test_perp_neg_of_a_batch_is_perp_neg_of_its_samples(seeded):
    uncond, text = normal(seeded, 3, 4, 2, 2), normal(seeded, 3, 4, 2, 2)
    negatives, weights = normal(seeded, 3, 2, 4, 2, 2), normal(seeded, 3, 2)
    together = score.perp_neg(uncond, text, negatives, weights, 7.5)
    for i in range(3):
        one = slice(i, i + 1)
        alone = score.perp_neg(uncond[one], text[one], negatives[one], weights[one], 7.5)
        torch.testing.assert_close(together[one], alone)


@pytest.mark.parametrize(("name", "value"), [("sds", 0.75), ("uniform", 1.0), ("fantasia3d", 0.375)])
def test_weightings(name, value):
    assert score.WEIGHTINGS[name](torch.tensor([0.25])).item() == pytest.approx(value)


def test_sds_gradient_is_exactly_the_formula(batch):
    x0, eps, alpha_bar = batch
    eps_hat = x0.cos()
    x = x0.clone().requires_grad_()
    weight = score.WEIGHTINGS["sds"](alpha_bar)
    loss = score.specified_gradient(x, distillation.sds_gradient(eps_hat, eps, weight))
    loss.backward()
    expected = (1 - alpha_bar)[:, None, None, None] * (eps_hat - eps)
    assert torch.equal(x.grad, expected / len(x))
    torch.testing.assert_close(loss, 0.5 * (expected**2).sum() / len(x))


def test_sjc_gradient_is_equation_nine(batch):
    x, n, alpha_bar = batch
    sigma = score.per_sample(((1 - alpha_bar) / alpha_bar).sqrt(), x)
    z = x + sigma * n
    eps_hat = z.sin()
    denoised = z - sigma * eps_hat
    torch.testing.assert_close(distillation.sjc_gradient(eps_hat, n, var_red=True), -(denoised - x) / sigma)
    torch.testing.assert_close(distillation.sjc_gradient(eps_hat, n, var_red=False), -(denoised - z) / sigma)


def test_image_gradient_vanishes_where_the_model_agrees(batch):
    x, other, alpha_bar = batch
    weight = torch.ones_like(alpha_bar)
    assert distillation.image_gradient(x, x, weight, alpha_bar).count_nonzero() == 0
    ratio = (alpha_bar / (1 - alpha_bar)).sqrt()[:, None, None, None]
    torch.testing.assert_close(distillation.image_gradient(x, other, weight, alpha_bar), ratio * (x - other))


def test_specified_gradient_follows_the_chain_rule_and_the_scale(seeded):
    x = normal(seeded, 2, 3).requires_grad_()
    matrix, grad = normal(seeded, 3, 5), normal(seeded, 2, 5)
    (score.specified_gradient(x @ matrix, grad) * 1024.0).backward()
    torch.testing.assert_close(x.grad, 1024.0 * (grad / 2) @ matrix.T)


def test_specified_gradient_does_not_overflow_under_autocast():
    x = torch.ones(1, 4, dtype=torch.float16, requires_grad=True)
    grad = torch.full((1, 4), 300.0, dtype=torch.float16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = score.specified_gradient(x, grad)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(0.5 * 4 * 300.0**2)
    assert torch.equal(x.grad, grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_specified_gradient_is_the_same_under_autocast(seeded, dtype):
    """Through layers that autocast computes in bfloat16 the given gradient arrives as it is given."""
    layer, x = torch.nn.Linear(4, 4), normal(seeded, 3, 4).float()
    grad = normal(seeded, 3, 4).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x).to(dtype)
        out.retain_grad()
        loss = score.specified_gradient(out, grad)
    loss.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, grad.square().sum() / 6)
    torch.testing.assert_close(out.grad, (grad / 3).to(dtype))
    assert layer.weight.grad.dtype == torch.float32
    torch.testing.assert_close(layer.weight.grad, grad.T @ x / 3, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(("size", "steps"), [(1.0, True), (1e4, False)])
def test_a_grad_scaler_sees_its_factor_and_what_overflows(size, steps):
    """The factor multiplies the gradient, unscaling takes it out again, and an overflow skips the step."""
    x = torch.ones(2, 4, requires_grad=True)
    grad = torch.full((2, 4), size)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    optimizer = torch.optim.SGD([x], lr=1.0)
    loss = score.specified_gradient(x.half(), grad)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    assert bool(x.grad.isfinite().all()) is steps
    scaler.step(optimizer)
    scaler.update()
    expected = 1.0 - grad / 2 if steps else torch.ones(2, 4)
    assert torch.equal(x.detach(), expected)
    assert scaler.get_scale() == (2.0**10 if steps else 2.0**9)


def test_clean_gradient_replaces_nan_and_clips():
    grad = torch.tensor([float("nan"), -7.0, 0.5, 9.0])
    assert score.clean_gradient(grad, 2.0).tolist() == [0.0, -2.0, 0.5, 2.0]
    assert score.clean_gradient(grad).tolist() == [0.0, -7.0, 0.5, 9.0]


def test_timesteps_reach_both_ends_and_belong_to_the_sample():
    streams = RandomStreams(3)
    drawn = score.sample_timesteps(streams.at(0, range(200)), 5, 8)
    assert sorted(set(drawn.tolist())) == [5, 6, 7, 8]
    assert score.sample_timesteps(streams.at(0, [17]), 5, 8) == drawn[17]
