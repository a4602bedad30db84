import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from maquette.core.errors import ConfigError, UserError
from maquette.core.random import RandomStreams
from maquette.core.registry import find
from maquette.diffusion import score
from maquette.diffusion.load import load_pipeline
from maquette.models.guidance.deep_floyd import DeepFloydGuidance
from maquette.models.guidance.views import Views
from maquette.models.prompt_processors.deep_floyd import DeepFloydPromptProcessor

ideal = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("gaussian_model.py"))))
TINY = "maquette/random-tiny"


@pytest.fixture(scope="module")
def prompt():
    return DeepFloydPromptProcessor(
        {
            "prompt": "a red car",
            "pretrained_model_name_or_path": TINY,
            "use_perp_neg": True,
            "half_precision_weights": False,
        }
    )()


@pytest.fixture(scope="module")
def guidance():
    return DeepFloydGuidance({"pretrained_model_name_or_path": TINY, "view_dependent_prompting": False})


def ask(guidance, utils, rgb, **more):
    rows = range(len(rgb))
    return guidance(rgb, utils, **ideal.cameras(rows), rng=RandomStreams(0).at(2, rows), **more)


def pictures(count=3, height=8, width=8):
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(1))


def test_it_is_registered_with_the_ecosystems_defaults():
    assert find("deep-floyd-guidance", "guidance") is DeepFloydGuidance
    cfg = DeepFloydGuidance.Config()
    assert (cfg.guidance_scale, cfg.enable_channels_last_format) == (20.0, True)
    assert cfg.pretrained_model_name_or_path == "DeepFloyd/IF-I-XL-v1.0"


def test_the_gradient_is_the_formula_with_the_first_three_channels(guidance, prompt):
    rgb = pictures().requires_grad_()
    out = ask(guidance, prompt, rgb)
    out["loss_sds"].backward()
    pipeline = load_pipeline(f"{TINY}?family=pixel")
    x, a = 2 * rgb.detach().permute(0, 3, 1, 2) - 1, pipeline.scheduler.alphas_cumprod[out.timestep]
    noise = RandomStreams(0).at(2, range(3)).normal("guidance/noise", 3, 8, 8)
    x_t = score.add_noise(x, noise, a)
    eps = [
        pipeline.unet(x_t, out.timestep, text.hidden.expand(3, -1, -1)).sample
        for text in (prompt.text, prompt.uncond)
    ]
    assert eps[0].shape[1] == 6
    text, uncond = eps[0][:, :3], eps[1][:, :3]
    expected = (1 - a)[:, None, None, None] * (uncond + 20.0 * (text - uncond) - noise) * 2 / 3
    torch.testing.assert_close(rgb.grad.permute(0, 3, 1, 2), expected, rtol=1e-4, atol=1e-5)


def test_pictures_of_any_size_are_brought_to_the_models(guidance, prompt):
    rgb = pictures(2, 20, 12).requires_grad_()
    out = ask(guidance, prompt, rgb)
    out["loss_sds"].backward()
    assert rgb.grad.shape == rgb.shape and rgb.grad.isfinite().all() and rgb.grad.abs().sum() > 0


def test_it_can_be_looked_at_with_perp_neg_too(prompt):
    guidance = DeepFloydGuidance(
        {"pretrained_model_name_or_path": TINY, "eval_steps": 3, "max_items_eval": 2}
    )
    seen = ask(guidance, prompt, pictures(), guidance_eval=True).eval
    assert seen.texts == ["a red car, side view", "a red car, front view"]
    for name in ("imgs_noisy", "imgs_1step", "imgs_1orig", "imgs_final"):
        assert seen[name].shape == (2, 8, 8, 3)
        assert seen[name].min() >= 0 and seen[name].max() <= 1


def test_denoising_to_the_end_stays_within_what_a_picture_can_be(prompt):
    guidance = DeepFloydGuidance({"pretrained_model_name_or_path": TINY, "guidance_scale": 100.0})
    text = guidance.condition(Views(prompt_utils=prompt, **ideal.cameras()))
    x, t = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([980, 500, 90])
    for _, x0 in guidance.descend(x, t, text, 4):
        assert x0.abs().max() <= 1.0
    found, _ = list(guidance.descend(x, t, text, 4))[-1]
    assert found.abs().max() < 1.2


def test_there_are_no_latents(guidance, prompt):
    with pytest.raises(UserError, match="no latents"):
        ask(guidance, prompt, pictures(), rgb_as_latents=True)


def test_a_model_of_latents_is_refused():
    with pytest.raises(ConfigError, match="first stage of DeepFloyd IF"):
        DeepFloydGuidance({"pretrained_model_name_or_path": f"{TINY}?family=sd"})
