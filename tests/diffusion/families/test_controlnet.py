from itertools import pairwise

import pytest
import torch

from maquette.core.errors import UserError
from maquette.diffusion import score
from maquette.diffusion.denoiser import load_denoiser
from maquette.diffusion.families.controlnet import ControlNetDenoiser
from maquette.diffusion.load import load_pipeline
from maquette.diffusion.text import encode_prompts

CPU = torch.device("cpu")
NAME = "maquette/random-tiny?family=controlnet"


@pytest.fixture(scope="module")
def denoiser():
    return load_denoiser(NAME, torch.float32, CPU)


def test_our_denoising_is_that_of_the_pipeline(denoiser, seeded):
    control = torch.rand(1, 3, 32, 32, generator=seeded)
    x = start = torch.randn(1, 4, 8, 8, generator=seeded)
    encoding, levels = encode_prompts(NAME, ["a red car", ""]), [501, 1, 0]
    for level, following in pairwise(levels):
        t = torch.tensor([level])
        text, uncond = (
            denoiser.predict_noise(x, t, one.hidden, control=control) for one in (encoding[:1], encoding[1:])
        )
        eps = score.classifier_free(uncond, text, 3.0)
        x = score.ddim_step(x, eps, denoiser.alphas_cumprod[[level]], denoiser.alphas_cumprod[[following]])
    expected = load_pipeline(NAME)(
        "a red car",
        image=control,
        latents=start,
        num_inference_steps=2,
        guidance_scale=3.0,
        output_type="latent",
    ).images
    torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-4)


def test_no_control_or_none_of_its_strength_is_the_plain_model(denoiser, seeded):
    plain = load_denoiser("maquette/random-tiny", torch.float32, CPU)
    x_t, t = torch.randn(2, 4, 8, 8, generator=seeded), torch.tensor([10, 700])
    text, control = torch.randn(2, 77, 32, generator=seeded), torch.rand(2, 3, 32, 32, generator=seeded)
    expected = plain.predict_noise(x_t, t, text)
    steered = denoiser.predict_noise(x_t, t, text, control=control)
    assert torch.equal(denoiser.predict_noise(x_t, t, text), expected)
    assert (steered - expected).abs().mean() > 0.01
    denoiser.conditioning_scale = 0.0
    torch.testing.assert_close(denoiser.predict_noise(x_t, t, text, control=control), expected)
    denoiser.conditioning_scale = 1.0


def test_a_controlnet_of_its_own_stands_before_a_plain_model(tmp_path, denoiser, seeded):
    load_pipeline(NAME, parts=("controlnet",)).controlnet.save_pretrained(tmp_path)
    found = load_denoiser("maquette/random-tiny", torch.float32, CPU, controlnet=str(tmp_path))
    x_t, t, text = torch.randn(1, 4, 8, 8, generator=seeded), torch.tensor([10]), torch.zeros(1, 77, 32)
    control = torch.rand(1, 3, 32, 32, generator=seeded)
    expected = denoiser.predict_noise(x_t, t, text, control=control)
    torch.testing.assert_close(found.predict_noise(x_t, t, text, control=control), expected)
    with pytest.raises(UserError, match="family flow"):
        load_denoiser("maquette/random-tiny?family=flow", torch.float32, CPU, controlnet=str(tmp_path))


def test_a_controlnet_of_another_version_is_refused(denoiser):
    one = load_pipeline("maquette/random-tiny")
    network = load_pipeline(NAME).controlnet
    network.register_to_config(cross_attention_dim=64)
    with pytest.raises(UserError, match="64 numbers a token"):
        ControlNetDenoiser(one.unet, one.vae, one.scheduler, network)
