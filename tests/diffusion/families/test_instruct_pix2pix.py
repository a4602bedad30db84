from itertools import pairwise

import torch

from maquette.diffusion import score
from maquette.diffusion.denoiser import load_denoiser
from maquette.diffusion.families.instruct_pix2pix import two_guidances
from maquette.diffusion.load import load_pipeline
from maquette.diffusion.text import encode_prompts

NAME = "maquette/random-tiny?family=ip2p"


def test_our_denoising_is_that_of_the_pipeline(seeded):
    denoiser = load_denoiser(NAME, torch.float32, torch.device("cpu"))
    image = torch.rand(1, 3, 32, 32, generator=seeded)
    picture = denoiser.picture(image)
    x = start = torch.randn(1, 4, 8, 8, generator=seeded)
    encoding, levels = encode_prompts(NAME, ["make it red", ""]), [501, 1, 0]
    for level, following in pairwise(levels):
        t, (text, empty) = torch.tensor([level]), (encoding[:1].hidden, encoding[1:].hidden)
        eps = two_guidances(
            denoiser.predict_noise(x, t, empty),
            denoiser.predict_noise(x, t, empty, picture=picture),
            denoiser.predict_noise(x, t, text, picture=picture),
            text_scale=5.0,
            picture_scale=1.5,
        )
        x = score.ddim_step(x, eps, denoiser.alphas_cumprod[[level]], denoiser.alphas_cumprod[[following]])
    expected = load_pipeline(NAME)(
        "make it red",
        image=image * 2 - 1,
        latents=start,
        num_inference_steps=2,
        guidance_scale=5.0,
        image_guidance_scale=1.5,
        output_type="latent",
    ).images
    torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-4)


def test_two_guidances_of_one_are_the_plain_prediction(seeded):
    nothing, picture, both = torch.randn(3, 2, 4, generator=seeded)
    torch.testing.assert_close(two_guidances(nothing, picture, both, 1.0, 1.0), both)
    torch.testing.assert_close(
        two_guidances(nothing, nothing, both, 3.0, 9.0), score.classifier_free(nothing, both, 3.0)
    )


def test_a_picture_of_any_size_is_brought_to_the_models():
    denoiser = load_denoiser(NAME, torch.float32, torch.device("cpu"))
    assert denoiser.picture(torch.rand(2, 3, 50, 40)).shape == (2, 4, 8, 8)
