import pytest
import torch

from maquette.core.errors import UserError
from maquette.diffusion import score
from maquette.diffusion.denoiser import load_denoiser
from maquette.diffusion.families.pixel import PixelDenoiser
from maquette.diffusion.load import load_pipeline
from maquette.diffusion.text import encode_prompts

CPU = torch.device("cpu")
NAME = "maquette/random-tiny?family=pixel"


@pytest.fixture(scope="module")
def denoiser():
    return load_denoiser(NAME, torch.float32, CPU)


def test_latents_are_the_pictures(denoiser, seeded):
    images = torch.rand(2, 3, 8, 8, generator=seeded, requires_grad=True)
    latents = denoiser.encode(images)
    torch.testing.assert_close(latents, images * 2 - 1)
    torch.testing.assert_close(denoiser.decode(latents), images)
    other_size = denoiser.encode(torch.full((1, 3, 24, 20), 0.25))
    torch.testing.assert_close(other_size, torch.full((1, 3, 8, 8), -0.5))


def test_the_variance_is_left_out(denoiser, seeded):
    x_t, t = torch.randn(2, 3, 8, 8, generator=seeded), torch.tensor([10, 900])
    text = torch.randn(2, 77, 32, generator=seeded)
    expected = denoiser.unet(x_t, t, text).sample[:, :3]
    torch.testing.assert_close(denoiser.predict_noise(x_t, t, text), expected)


def test_our_denoising_is_that_of_the_pipeline(denoiser):
    """Four steps of DDPM: ours with the pipeline's scheduler, on the same noise."""
    pipeline, scale = load_pipeline(NAME), 4.0
    pipeline.scheduler = type(pipeline.scheduler).from_config(
        pipeline.scheduler.config, variance_type="fixed_small"
    )
    noise = torch.Generator().manual_seed(3)
    expected = pipeline(
        "a red car", num_inference_steps=4, guidance_scale=scale, generator=noise, output_type="pt"
    ).images
    noise = torch.Generator().manual_seed(3)
    encoding = encode_prompts(NAME, ["a red car", ""])
    x = torch.randn(1, 3, 8, 8, generator=noise)
    pipeline.scheduler.set_timesteps(4)
    for t in pipeline.scheduler.timesteps:
        text, uncond = (
            denoiser.predict_noise(x, t[None], one.hidden) for one in (encoding[:1], encoding[1:])
        )
        eps = score.classifier_free(uncond, text, scale)
        x = pipeline.scheduler.step(eps, t, x, generator=noise).prev_sample
    torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-4)


def test_an_upscaler_is_refused(denoiser):
    pipeline = load_pipeline(NAME)
    pipeline.unet.register_to_config(in_channels=6)
    with pytest.raises(UserError, match="upscaler"):
        PixelDenoiser(pipeline.unet, pipeline.scheduler)
