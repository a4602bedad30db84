from itertools import pairwise

import pytest
import torch

from maquette.core.errors import UserError
from maquette.diffusion import score
from maquette.diffusion.denoiser import LatentDenoiser, load_denoiser, shared_denoiser, weights_dtype
from maquette.diffusion.families.kinds import FAMILIES
from maquette.diffusion.load import load_pipeline
from maquette.diffusion.memory import Memory
from maquette.diffusion.noise_predictor import NoisePredictor
from maquette.diffusion.text import encode_prompts

CPU = torch.device("cpu")

MODELS = {
    "epsilon": "maquette/random-tiny",
    "velocity": "maquette/random-tiny?prediction=v_prediction&vae=8",
    "sample": "maquette/random-tiny?prediction=sample&vae=2&latent=16",
    "pooled": "maquette/random-tiny?pooled=yes",
    "two encoders": "maquette/random-tiny?encoders=2&prediction=v_prediction",
}


def build(name):
    pipeline = load_pipeline(name)
    return LatentDenoiser(pipeline.unet, pipeline.vae, pipeline.scheduler)


@pytest.fixture(params=MODELS.values(), ids=MODELS.keys(), scope="module")
def model(request):
    return request.param, build(request.param)


@pytest.mark.parametrize("family", [one.name for one in FAMILIES.values()])
def test_every_family_says_in_one_way_where_the_noise_is(family):
    denoiser = load_denoiser(f"maquette/random-tiny?family={family}", torch.float32, CPU)
    assert isinstance(denoiser, NoisePredictor)
    assert type(denoiser).predict_noise is NoisePredictor.predict_noise


def test_sizes_come_from_the_model():
    found = build("maquette/random-tiny?vae=8&latent=4&channels=8")
    assert (found.latent_size, found.image_size, found.latent_channels) == (4, 32, 8)
    assert found.num_train_timesteps == 1000


def test_latents_and_pictures_have_the_sizes_that_are_promised(model):
    _, denoiser = model
    images = torch.rand(2, 3, denoiser.image_size, denoiser.image_size)
    latents = denoiser.encode(images)
    assert latents.shape == (2, denoiser.latent_channels, denoiser.latent_size, denoiser.latent_size)
    assert denoiser.decode(latents).shape == images.shape


def test_encoding_is_the_scaled_posterior(seeded):
    denoiser = build("maquette/random-tiny")
    images = torch.rand(2, 3, 32, 32, generator=seeded)
    noise = torch.randn(2, 4, 8, 8, generator=seeded)
    posterior = denoiser.vae.encode(images * 2 - 1).latent_dist
    torch.testing.assert_close(denoiser.encode(images), 0.5 * posterior.mean)
    torch.testing.assert_close(denoiser.encode(images, noise), 0.5 * (posterior.mean + posterior.std * noise))


def test_decoding_undoes_scale_and_shift(seeded):
    pipeline = load_pipeline("maquette/random-tiny")
    pipeline.vae.register_to_config(shift_factor=0.25)
    denoiser = LatentDenoiser(pipeline.unet, pipeline.vae, pipeline.scheduler)
    latents = torch.randn(1, 4, 8, 8, generator=seeded)
    expected = pipeline.vae.decode(latents / 0.5 + 0.25).sample / 2 + 0.5
    torch.testing.assert_close(denoiser.decode(latents), expected)


def test_the_picture_gets_a_gradient_and_the_weights_do_not():
    denoiser = build("maquette/random-tiny")
    images = torch.rand(1, 3, 32, 32, requires_grad=True)
    denoiser.encode(images).square().sum().backward()
    assert images.grad.abs().sum() > 0
    assert all(p.grad is None for p in denoiser.vae.parameters())


def test_noise_prediction_keeps_no_graph():
    denoiser = build("maquette/random-tiny")
    x_t = torch.randn(1, 4, 8, 8, requires_grad=True)
    assert not denoiser.predict_noise(x_t, torch.tensor([5]), torch.zeros(1, 77, 32)).requires_grad


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_noise_follows_from_what_the_unet_predicts(prediction, seeded):
    denoiser = build(f"maquette/random-tiny?prediction={prediction}")
    x_t = torch.randn(3, 4, 8, 8, generator=seeded)
    t, text = torch.tensor([1, 500, 999]), torch.randn(3, 77, 32, generator=seeded)
    out = denoiser.unet(x_t, t, text).sample
    alpha_bar = denoiser.alphas_cumprod[t]
    expected = {
        "epsilon": out,
        "v_prediction": score.eps_from_v(out, x_t, alpha_bar),
        "sample": score.eps_from_x0(out, x_t, alpha_bar),
    }[prediction]
    torch.testing.assert_close(denoiser.predict_noise(x_t, t, text), expected)


def test_our_denoising_is_that_of_the_pipeline(model, seeded):
    """Same latents, same prompt, four steps of DDIM: text, sizes, guidance and noise levels agree."""
    name, denoiser = model
    side, scale, prompt = denoiser.latent_size, 3.0, "a red car"
    x = start = torch.randn(1, 4, side, side, generator=seeded)
    encoding = encode_prompts(name, [prompt, ""])
    cond, uncond = encoding[:1], encoding[1:]
    if "encoders=2" in name:
        uncond = uncond.zeros()
    levels = [751, 501, 251, 1, 0]
    for level, following in pairwise(levels):
        eps = [
            denoiser.predict_noise(x, torch.tensor([level]), one.hidden, one.pooled) for one in (uncond, cond)
        ]
        alpha_bar, after = (denoiser.alphas_cumprod[[one]] for one in (level, following))
        x = score.ddim_step(x, score.classifier_free(*eps, scale), alpha_bar, after)
    pipeline = load_pipeline(name)
    expected = pipeline(
        prompt, latents=start, num_inference_steps=4, guidance_scale=scale, output_type="latent"
    ).images
    torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-4)


def test_a_batch_is_its_samples(model, seeded):
    name, denoiser = model
    side = denoiser.latent_size
    x_t = torch.randn(3, 4, side, side, generator=seeded)
    t = torch.tensor([20, 400, 980])
    text = encode_prompts(name, ["one", "two", "three"])
    together = denoiser.predict_noise(x_t, t, text.hidden, text.pooled)
    for i in range(3):
        one = text[i : i + 1]
        alone = denoiser.predict_noise(x_t[i : i + 1], t[i : i + 1], one.hidden, one.pooled)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)


def test_a_model_with_two_encoders_asks_for_the_pooled_text():
    denoiser = build("maquette/random-tiny?encoders=2")
    with pytest.raises(UserError, match="pooled text"):
        denoiser.predict_noise(torch.zeros(1, 4, 8, 8), torch.tensor([1]), torch.zeros(1, 77, 64))


def test_an_inpainting_unet_is_refused():
    pipeline = load_pipeline("maquette/random-tiny")
    pipeline.unet.register_to_config(in_channels=9)
    with pytest.raises(UserError, match="9 channels"):
        LatentDenoiser(pipeline.unet, pipeline.vae, pipeline.scheduler)


def test_a_flow_model_is_refused():
    from diffusers import FlowMatchEulerDiscreteScheduler

    pipeline = load_pipeline("maquette/random-tiny")
    with pytest.raises(UserError, match="FlowMatchEulerDiscreteScheduler"):
        LatentDenoiser(pipeline.unet, pipeline.vae, FlowMatchEulerDiscreteScheduler())


def test_a_model_is_loaded_once(saved_folder):
    one = shared_denoiser(str(saved_folder), torch.float32, CPU)
    assert shared_denoiser(str(saved_folder), torch.float32, CPU) is one
    assert shared_denoiser(str(saved_folder), torch.bfloat16, CPU) is not one


@pytest.mark.parametrize("option", [{"attention_slice": "max"}, {"channels_last": True}])
def test_the_settings_of_one_user_do_not_reach_the_next(option):
    def processors(denoiser):
        return {type(one).__name__ for one in denoiser.unet.attn_processors.values()}

    def last(denoiser):
        return denoiser.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)

    name = "maquette/random-tiny"
    before = shared_denoiser(name, torch.float32, CPU)
    changed = shared_denoiser(name, torch.float32, CPU, memory=Memory(**option))
    after = shared_denoiser(name, torch.float32, CPU)
    assert processors(before) == processors(after) and not last(before) and not last(after)
    assert processors(changed) != processors(after) if "attention_slice" in option else last(changed)
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([10, 500])
    text = torch.randn(2, 77, 32)
    torch.testing.assert_close(
        changed.predict_noise(x, t, text), after.predict_noise(x, t, text), atol=1e-5, rtol=1e-4
    )


def test_half_precision_is_for_gpus():
    assert weights_dtype(CPU, half=True) == torch.float32
