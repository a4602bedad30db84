import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from maquette.core.errors import ConfigError, UserError
from maquette.core.random import RandomStreams
from maquette.core.registry import find
from maquette.models.guidance.instructpix2pix import InstructPix2PixGuidance
from maquette.models.prompt_processors.stable_diffusion import StableDiffusionPromptProcessor

MODEL = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("gaussian_model.py"))))
RANDOM = "maquette/random-tiny"


class EditModel(MODEL.GaussianModel):
    """Edited pictures lie around the text and half of the picture."""

    def picture(self, images):
        return images

    def predict_noise(self, x_t, t, text, pooled=None, picture=None):
        return self.noise_at(x_t, t, text[:, 0, 0].view(-1, 1, 1, 1) + 0.5 * picture)


def ideal(**options):
    return InstructPix2PixGuidance(
        {"use_sds": True, "view_dependent_prompting": True, **options}, EditModel()
    )


def ask(guidance, rows=range(3)):
    second = MODEL.pictures(6, seed=7)[list(rows)]
    return MODEL.ask(guidance, rows, MODEL.prompt(), cond_rgb=second)


def test_the_gradient_is_exactly_the_formula_with_both_scales():
    grad, x_t, a, noise = ask(ideal(guidance_scale=7.5, condition_scale=1.5))
    half = 0.5 * MODEL.pictures(6, seed=7)[:3].permute(0, 3, 1, 2)
    texts = torch.tensor([MODEL.SIDE, MODEL.FRONT, MODEL.BACK], dtype=torch.float64).view(-1, 1, 1, 1)
    eps_t, eps_i = (MODEL.noise_of(x_t, text + half, a) for text in (texts, MODEL.NEGATIVE))
    eps_u = MODEL.noise_of(x_t, torch.full_like(half, MODEL.NEGATIVE), a)
    guided = eps_u + 7.5 * (eps_t - eps_i) + 1.5 * (eps_i - eps_u)
    MODEL.exactly(grad, (1 - a).view(-1, 1, 1, 1) * (guided - noise))


def test_a_batch_is_its_samples():
    guidance = ideal()
    assert MODEL.is_its_parts(lambda rows: ask(guidance, rows)[0], [[0], [1], [2]])


def test_an_edit_of_an_ideal_model_lies_where_its_data_do():
    options = {"use_sds": False, "min_step_percent": 0.98, "diffusion_steps": 400}
    guidance = ideal(**options, guidance_scale=1.0, condition_scale=1.0)
    second = MODEL.pictures(1, seed=7).expand(3, -1, -1, -1)
    out = guidance(MODEL.pictures(3), MODEL.prompt(), **MODEL.cameras(), cond_rgb=second,
                   rng=RandomStreams(0).at(0, range(3)))  # fmt: skip
    assert not any(name.startswith("loss_") for name in out)
    noise = RandomStreams(0).at(0, range(3)).normal("guidance/noise", 3, 4, 4).double().permute(0, 2, 3, 1)
    texts = torch.tensor([MODEL.SIDE, MODEL.FRONT, MODEL.BACK], dtype=torch.float64).view(-1, 1, 1, 1)
    # DDIM carries the noise over as the distance to the mean, in spreads.
    expected = (texts + 0.5 * second + MODEL.SPREAD * noise).clamp(0, 1)
    torch.testing.assert_close(out["edit_images"], expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("use_sds", [True, False])
def test_a_random_pipeline_edits_and_guides_in_any_size(use_sds):
    guidance = InstructPix2PixGuidance(
        {"ip2p_name_or_path": RANDOM, "use_sds": use_sds, "fixed_size": 48, "diffusion_steps": 2}
    )
    utils = StableDiffusionPromptProcessor(
        {"pretrained_model_name_or_path": RANDOM, "prompt": "make it red"}
    )()
    angles = {name: one.float() for name, one in MODEL.cameras().items()}
    rgb = MODEL.pictures(3, 40)[:, :, :30].float().requires_grad_()
    out = guidance(rgb, utils, **angles, cond_rgb=MODEL.pictures(1, 30).float(), guidance_eval=use_sds)
    if use_sds:
        out.loss_sds.backward()
        assert (rgb.grad.flatten(1).norm(dim=1) > 0).all() and out.eval.imgs_final.shape == (3, 48, 48, 3)
    else:
        assert out["edit_images"].shape == (3, 40, 30, 3)


def test_edits_of_latents_have_the_size_of_the_model():
    guidance = ideal(use_sds=False, diffusion_steps=2)
    latents, second = MODEL.pictures(3, 8), MODEL.pictures(3)
    out = guidance(latents, MODEL.prompt(), **MODEL.cameras(), cond_rgb=second, rgb_as_latents=True)
    assert out["edit_images"].shape == (3, 4, 4, 3)


def test_what_cannot_be_used_is_named():
    with pytest.raises(UserError, match="cond_rgb"):
        MODEL.ask(ideal(), utils=MODEL.prompt())
    with pytest.raises(UserError, match="prompt"):
        MODEL.ask(ideal(), cond_rgb=MODEL.pictures())
    with pytest.raises(ConfigError, match="use_perp_neg"):
        MODEL.ask(ideal(), utils=replace(MODEL.prompt(), use_perp_neg=True), cond_rgb=MODEL.pictures())
    with pytest.raises(ConfigError, match="multiple of 4"):
        InstructPix2PixGuidance({"ip2p_name_or_path": RANDOM, "fixed_size": 50})
    with pytest.raises(ConfigError, match="diffusion_steps"):
        ideal(diffusion_steps=0)


def test_name():
    assert find("stable-diffusion-instructpix2pix-guidance", "guidance") is InstructPix2PixGuidance
