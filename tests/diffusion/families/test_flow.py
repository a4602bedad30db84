from itertools import pairwise

import pytest
import torch

from maquette.core.errors import UserError
from maquette.diffusion import score
from maquette.diffusion.denoiser import load_denoiser
from maquette.diffusion.families.flow import FlowDenoiser, alpha_bar_of, length
from maquette.diffusion.load import load_pipeline
from maquette.diffusion.text import encode_prompts

CPU = torch.device("cpu")
NAME = "maquette/random-tiny?family=flow"


@pytest.fixture(scope="module")
def denoiser():
    return load_denoiser(NAME, torch.float32, CPU)


def test_a_level_of_the_flow_is_a_level_of_diffusion():
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 5, 4, 3, dtype=torch.float64, generator=generator)
    sigma = torch.tensor([0.001, 0.2, 0.5, 0.9, 0.999], dtype=torch.float64)
    on_the_line = (1 - sigma.view(-1, 1, 1)) * x0 + sigma.view(-1, 1, 1) * eps
    noised = score.add_noise(x0, eps, alpha_bar_of(sigma))
    torch.testing.assert_close(noised * length(sigma).view(-1, 1, 1), on_the_line, rtol=1e-12, atol=1e-12)


def test_the_right_velocity_gives_back_noise_and_clean_latents(denoiser, seeded):
    x0, eps = torch.randn(2, 4, 4, 8, 8, generator=seeded)
    t = torch.tensor([0, 300, 700, 999])
    alpha_bar = denoiser.alphas_cumprod[t]
    x_t = score.add_noise(x0, eps, alpha_bar)
    found = denoiser.noise_in(denoiser.target(x0, eps, t), x_t, t)
    torch.testing.assert_close(found, eps, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(score.predicted_x0(x_t, eps, alpha_bar)[:3], x0[:3], rtol=1e-3, atol=1e-3)


def test_our_denoising_is_that_of_the_pipeline(denoiser, seeded):
    """DDIM at the levels of the flow is Euler along the flow: both keep x0 and eps and change the mixture."""
    pipeline, scale = load_pipeline(NAME), 3.0
    start = torch.randn(1, 4, 8, 8, generator=seeded)
    expected = pipeline(
        "a red car",
        latents=start,
        sigmas=[0.9, 0.6, 0.3],
        guidance_scale=scale,
        output_type="latent",
    ).images
    sigmas = pipeline.scheduler.sigmas  # shifted by the scheduler, and zero at the end
    encoding = encode_prompts(NAME, ["a red car", ""])
    x = start / length(sigmas[:1]).view(-1, 1, 1, 1)
    denoiser = _with_levels(denoiser, sigmas)
    for level, following in pairwise(range(len(sigmas))):
        t = torch.tensor([level])
        text, uncond = (
            denoiser.predict_noise(x, t, one.hidden, one.pooled) for one in (encoding[:1], encoding[1:])
        )
        eps = score.classifier_free(uncond, text, scale)
        x = score.ddim_step(x, eps, denoiser.alphas_cumprod[[level]], denoiser.alphas_cumprod[[following]])
    torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-4)


def _with_levels(denoiser, sigmas):
    """The same network at other levels."""
    other = FlowDenoiser(denoiser.transformer, denoiser.vae, load_pipeline(NAME).scheduler)
    other.sigmas, other.alphas_cumprod = sigmas, alpha_bar_of(sigmas)
    return other


def test_the_pooled_text_is_asked_for(denoiser):
    with pytest.raises(UserError, match="pooled text"):
        denoiser.predict_noise(torch.zeros(1, 4, 8, 8), torch.tensor([1]), torch.zeros(1, 333, 64))


def test_a_scheduler_of_diffusion_is_refused(denoiser):
    from diffusers import DDIMScheduler

    with pytest.raises(UserError, match="DDIMScheduler"):
        FlowDenoiser(denoiser.transformer, denoiser.vae, DDIMScheduler())
