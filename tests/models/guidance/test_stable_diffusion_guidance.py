import pytest
import torch

from maquette.core.errors import ConfigError
from maquette.core.random import RandomStreams
from maquette.core.registry import find
from maquette.diffusion import lora, score
from maquette.diffusion.denoiser import own_denoiser
from maquette.diffusion.text import TextEncoding
from maquette.models.guidance.stable_diffusion import StableDiffusionGuidance
from maquette.models.prompt_processors.directions import four_views
from maquette.models.prompt_processors.prompt_utils import PromptUtils
from maquette.models.prompt_processors.stable_diffusion import StableDiffusionPromptProcessor

MODELS = {
    "epsilon": "maquette/random-tiny",
    "velocity, 8x": "maquette/random-tiny?prediction=v_prediction&vae=8",
    "two encoders": "maquette/random-tiny?encoders=2",
}


class PointDenoiser:
    """An ideal model of data that is one point for each text: the text's single number, in every pixel."""

    alphas_cumprod = torch.linspace(0.999, 0.01, 1000, dtype=torch.float64)
    num_train_timesteps = 1000
    image_size = latent_size = 4
    latent_channels = 3

    def encode(self, images, noise=None):
        return images if noise is None else images + noise

    def decode(self, latents):
        return latents

    def predict_noise(self, x_t, t, text, pooled=None):
        point = text[:, 0, 0].to(x_t)[:, None, None, None].expand_as(x_t)
        return score.eps_from_x0(point, x_t, self.alphas_cumprod[t])


def point_prompt(use_perp_neg=False):
    """Every view's text is one number: side 0.2, front 0.4, back 0.6, overhead 0.8; no text is 0."""
    number = lambda *values: TextEncoding(torch.tensor(values, dtype=torch.float64).view(-1, 1, 1))
    return PromptUtils(
        prompt="a point",
        prompts_vd=four_views().prompts("a point"),
        directions=four_views(),
        text=number(0.5),
        text_vd=number(0.2, 0.4, 0.6, 0.8),
        uncond=number(0.0),
        use_perp_neg=use_perp_neg,
    )


def ideal(**options):
    return StableDiffusionGuidance({"guidance_scale": 1.0, **options}, PointDenoiser())


def cameras(batch):
    azimuth = torch.tensor([90.0, 0.0, 180.0])[:batch]
    return {"elevation": torch.zeros(batch), "azimuth": azimuth, "camera_distances": torch.ones(batch)}


def draws(batch=3, step=0, seed=0):
    return RandomStreams(seed).at(step, range(batch))


def pictures(batch=3, size=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(batch, size, size, 3, generator=generator, dtype=dtype)


def gradient(guidance, rgb, prompt, rng, **more):
    rgb = rgb.clone().requires_grad_()
    out = guidance(rgb, prompt, **cameras(len(rgb)), rng=rng, **more)
    sum(value for key, value in out.items() if key.startswith("loss_")).backward()
    return rgb.grad, out


def test_it_is_registered():
    assert find("stable-diffusion-guidance", "guidance") is StableDiffusionGuidance


@pytest.mark.parametrize("weighting", ["sds", "uniform", "fantasia3d"])
@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_the_gradient_is_exactly_the_formula(weighting, scale):
    rgb, prompt, rng = pictures(), point_prompt(), draws()
    guidance = ideal(weighting_strategy=weighting, guidance_scale=scale)
    grad, out = gradient(guidance, rgb, prompt, rng)
    x = rgb.permute(0, 3, 1, 2)
    alpha_bar = PointDenoiser.alphas_cumprod[out.timestep][:, None, None, None]
    point = scale * torch.tensor([0.2, 0.4, 0.6], dtype=torch.float64)[:, None, None, None]
    eps_difference = (alpha_bar / (1 - alpha_bar)).sqrt() * (x - point)
    weight = {
        "sds": 1 - alpha_bar,
        "uniform": 1.0,
        "fantasia3d": alpha_bar.sqrt() * (1 - alpha_bar),
    }[weighting]
    expected = weight * eps_difference
    torch.testing.assert_close(grad, expected.permute(0, 2, 3, 1) / 3, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(out.loss_sds, expected.square().sum() / 6)
    torch.testing.assert_close(out.grad_norm, expected.norm())


def test_without_variance_reduction_sjc_keeps_the_noise():
    rgb, prompt, rng = pictures(), point_prompt(), draws()
    with_noise, _ = gradient(ideal(use_sjc=True, var_red=False), rgb, prompt, rng)
    without, _ = gradient(ideal(use_sjc=True), rgb, prompt, rng)
    uniform, _ = gradient(ideal(weighting_strategy="uniform"), rgb, prompt, rng)
    noise = rng.normal("guidance/noise", 3, 4, 4).double().permute(0, 2, 3, 1)
    torch.testing.assert_close(without, uniform)
    torch.testing.assert_close(with_noise - without, noise / 3)


@pytest.mark.parametrize(
    "rule", [{}, {"use_sjc": True}, {"weighting_strategy": "fantasia3d"}, {"use_img_loss": True}]
)
def test_an_ideal_model_draws_the_picture_to_its_point(rule):
    guidance, prompt = ideal(**rule), point_prompt()
    rgb = pictures().requires_grad_()
    optimizer = torch.optim.Adam([rgb], lr=0.04)
    for step in range(80):
        optimizer.zero_grad()
        out = guidance(rgb, prompt, **cameras(3), rng=draws(step=step))
        (out.loss_sds + out.get("loss_sds_img", 0.0)).backward()
        optimizer.step()
    expected = torch.tensor([0.2, 0.4, 0.6], dtype=torch.float64).view(3, 1, 1, 1).expand_as(rgb)
    torch.testing.assert_close(rgb.detach(), expected, rtol=0, atol=0.02)


def test_the_loss_in_pixels_points_the_same_way():
    rgb, prompt, rng = pictures(), point_prompt(), draws()
    grad, out = gradient(ideal(use_img_loss=True), rgb, prompt, rng)
    alone, _ = gradient(ideal(), rgb, prompt, rng)
    alpha_bar = PointDenoiser.alphas_cumprod[out.timestep].view(-1, 1, 1, 1)
    point = torch.tensor([0.2, 0.4, 0.6], dtype=torch.float64).view(-1, 1, 1, 1)
    expected = (1 - alpha_bar) * (alpha_bar / (1 - alpha_bar)).sqrt() * (rgb - point) / 3
    torch.testing.assert_close(grad - alone, expected)


def test_perp_neg_uses_the_negatives_of_its_own_sample():
    guidance, prompt, rgb = ideal(guidance_scale=7.5), point_prompt(use_perp_neg=True), pictures()
    together, _ = gradient(guidance, rgb, prompt, draws())
    for i in range(3):
        one = {name: value[i : i + 1] for name, value in cameras(3).items()}
        alone = rgb[i : i + 1].clone().requires_grad_()
        guidance(alone, prompt, **one, rng=RandomStreams(0).at(0, [i])).loss_sds.backward()
        torch.testing.assert_close(together[i : i + 1] * 3, alone.grad)


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS.keys())
def real(request):
    processor = StableDiffusionPromptProcessor(
        {"prompt": "a red car", "pretrained_model_name_or_path": request.param, "use_perp_neg": True}
    )
    return request.param, processor()


@pytest.mark.parametrize("mode", ["mean", "sample"])
def test_a_batch_is_its_samples(real, mode):
    model, prompt = real
    guidance = StableDiffusionGuidance(
        {"pretrained_model_name_or_path": model, "guidance_scale": 7.5, "encode_mode": mode}
    )
    rgb = pictures(size=guidance.denoiser.image_size, dtype=torch.float32)
    together, out = gradient(guidance, rgb, prompt, draws(step=4))
    for i in range(3):
        one = {name: value[i : i + 1] for name, value in cameras(3).items()}
        alone = rgb[i : i + 1].clone().requires_grad_()
        single = guidance(alone, prompt, **one, rng=RandomStreams(0).at(4, [i]))
        single.loss_sds.backward()
        assert single.timestep[0] == out.timestep[i]
        torch.testing.assert_close(together[i : i + 1] * 3, alone.grad, rtol=1e-3, atol=1e-5)


def test_pictures_of_any_size_are_brought_to_the_models(real):
    model, prompt = real
    guidance = StableDiffusionGuidance({"pretrained_model_name_or_path": model})
    grad, out = gradient(guidance, pictures(size=20, dtype=torch.float32), prompt, draws())
    assert grad.shape == (3, 20, 20, 3) and grad.isfinite().all() and grad.abs().sum() > 0
    assert torch.isfinite(out.loss_sds)


def test_latents_are_taken_as_they_are():
    guidance = StableDiffusionGuidance(
        {"pretrained_model_name_or_path": MODELS["epsilon"], "grad_clip": 1e-3}
    )
    processor = StableDiffusionPromptProcessor({"pretrained_model_name_or_path": MODELS["epsilon"]})
    latents = torch.randn(3, 8, 8, 4)
    grad, _ = gradient(guidance, latents, processor(), draws(), rgb_as_latents=True)
    assert grad.abs().max().item() == pytest.approx(1e-3 / 3)
    with pytest.raises(ValueError, match="4 channels"):
        guidance(pictures(), processor(), **cameras(3), rgb_as_latents=True)


def test_a_model_that_answers_nan_shows_in_the_norm_and_not_in_the_gradient():
    guidance = ideal()
    guidance.denoiser.predict_noise = lambda x_t, *rest: torch.full_like(x_t, float("nan"))
    grad, out = gradient(guidance, pictures(), point_prompt(), draws())
    assert grad.count_nonzero() == 0
    assert out.grad_norm.isnan()


def test_the_answer_does_not_depend_on_mixed_precision_around_it(real):
    model, prompt = real
    guidance = StableDiffusionGuidance({"pretrained_model_name_or_path": model})
    rgb = pictures(size=16, dtype=torch.float32).requires_grad_()
    plain, _ = gradient(guidance, rgb.detach(), prompt, draws())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = guidance(rgb, prompt, **cameras(3), rng=draws())
    (out.loss_sds * 1024.0).backward()
    torch.testing.assert_close(rgb.grad / 1024.0, plain)


def test_noise_levels_follow_their_schedules():
    guidance = ideal(min_step_percent=[0, 0.3, 0.1, 100], max_step_percent=[0, 0.98, 0.5, 100])
    assert (guidance.min_step, guidance.max_step) == (300, 980)
    guidance.update_step(0, 50)
    assert (guidance.min_step, guidance.max_step) == (200, 740)
    guidance.update_step(0, 100)
    drawn = guidance.timesteps(RandomStreams(0).at(100, range(500)))
    assert 100 <= drawn.min() < 110 and 490 < drawn.max() <= 500


def test_square_root_annealing_goes_from_the_top_to_the_bottom():
    guidance = ideal(sqrt_anneal=True, trainer_max_steps=100)
    levels = []
    for step in (0, 25, 100, 400):
        guidance.update_step(0, step)
        levels.append((guidance.min_step, guidance.max_step))
    assert levels == [(980, 980), (500, 500), (20, 20), (20, 20)]


def test_one_hundred_percent_is_the_last_level():
    guidance = ideal(max_step_percent=1.0)
    assert guidance.max_step == 999


def test_clipping_follows_its_schedule():
    guidance = ideal(grad_clip=[0, 0.02, 0.04, 10])
    largest = []
    for step in (0, 5, 10):
        guidance.update_step(0, step)
        grad, _ = gradient(guidance, pictures(), point_prompt(), draws())
        largest.append(grad.abs().max().item() * 3)
    assert largest == pytest.approx([0.02, 0.03, 0.04])


def test_the_evaluation_of_an_ideal_model_ends_at_its_point():
    guidance = ideal(max_items_eval=2)
    out = guidance(pictures(), point_prompt(), **cameras(3), rng=draws(), guidance_eval=True)
    assert out.eval.texts == ["a point, side view", "a point, front view"]
    assert torch.equal(out.eval.timesteps, out.timestep[:2])
    expected = torch.tensor([0.2, 0.4], dtype=torch.float64).view(2, 1, 1, 1).expand(2, 4, 4, 3)
    torch.testing.assert_close(out.eval.imgs_1orig, expected)
    torch.testing.assert_close(out.eval.imgs_final, expected)


def test_outputs_read_like_a_mapping():
    out = ideal()(pictures(), point_prompt(), **cameras(3), rng=draws())
    assert out["loss_sds"] is out.loss_sds
    assert "loss_sds_img" not in out and "eval" not in out


def test_a_caller_without_draws_gets_the_same_numbers_each_time():
    one, _ = gradient(ideal(), pictures(), point_prompt(), None)
    two, _ = gradient(ideal(), pictures(), point_prompt(), None)
    assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"token_merging": True}, "token_merging"),
        ({"token_merging_params": {"ratio": 0.5}}, "token_merging_params"),
        ({"memory": "more"}, "memory"),
        ({"enable_attention_slicing": True, "attention_slice_size": 0}, "attention_slice_size"),
        ({"weighting_strategy": "sdss"}, "weighting_strategy"),
        ({"encode_mode": "mode"}, "encode_mode"),
        ({"eval_steps": 0}, "eval_steps"),
        ({"max_items_eval": 0}, "max_items_eval"),
        ({"max_step_percent": 98}, "max_step_percent"),
        ({"min_step_percent": [0, 1]}, "min_step_percent"),
        ({"grad_clip": 0}, "grad_clip"),
        ({"trainer_max_steps": 0}, "trainer_max_steps"),
    ],
)
def test_what_cannot_work_is_refused(options, key):
    with pytest.raises(ConfigError, match=rf"system\.guidance\.{key}"):
        ideal(**options)


def test_adapters_of_a_recipe_change_the_guidance_as_much_as_their_scale_says(tmp_path):
    denoiser = own_denoiser(MODELS["epsilon"], torch.float32, torch.device("cpu"))
    parameters = lora.add_adapter(denoiser.unet, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for weight in parameters:
            weight.add_(0.1)
    path = str(lora.save_adapter(denoiser.unet, tmp_path / "toy.safetensors"))
    prompt = StableDiffusionPromptProcessor({"pretrained_model_name_or_path": MODELS["epsilon"]})()

    def moved(adapters):
        guidance = StableDiffusionGuidance(
            {"pretrained_model_name_or_path": MODELS["epsilon"], "lora": adapters}
        )
        return gradient(guidance, pictures(dtype=torch.float32), prompt, draws())[0]

    plain = moved([])
    assert torch.equal(moved([{"path": path, "scale": 0.0}]), plain)
    assert not torch.allclose(moved([path]), plain)
