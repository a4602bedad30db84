import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from maquette.core.errors import ConfigError
from maquette.core.registry import find
from maquette.models.guidance.controlnet import ControlNetGuidance
from maquette.models.prompt_processors.stable_diffusion import StableDiffusionPromptProcessor

MODEL = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("gaussian_model.py"))))
RANDOM = "maquette/random-tiny"


class ControlledModel(MODEL.GaussianModel):
    """Pictures lie around the text and, as strongly as is asked for, the control picture."""

    conditioning_scale = 1.0

    def predict_noise(self, x_t, t, text, pooled=None, control=None):
        return self.noise_at(x_t, t, text[:, 0, 0].view(-1, 1, 1, 1) + self.conditioning_scale * control)


def ideal(**options):
    options = {"use_sds": True, "view_dependent_prompting": True, "control_type": "tile", **options}
    return ControlNetGuidance(options, ControlledModel())


def ask(guidance, rows=range(3)):
    return MODEL.ask(guidance, rows, MODEL.prompt(), cond_rgb=MODEL.pictures(6, seed=7)[list(rows)])


def test_the_gradient_is_exactly_the_formula_under_each_picture_s_control():
    grad, x_t, a, noise = ask(ideal(guidance_scale=7.5, condition_scale=0.3))
    control = 0.3 * MODEL.pictures(6, seed=7)[:3].permute(0, 3, 1, 2)
    texts = torch.tensor([MODEL.SIDE, MODEL.FRONT, MODEL.BACK], dtype=torch.float64).view(-1, 1, 1, 1)
    eps, plain = (MODEL.noise_of(x_t, text + control, a) for text in (texts, MODEL.NEGATIVE))
    MODEL.exactly(grad, (1 - a).view(-1, 1, 1, 1) * (plain + 7.5 * (eps - plain) - noise))


def test_a_batch_is_its_samples():
    guidance = ideal()
    assert MODEL.is_its_parts(lambda rows: ask(guidance, rows)[0], [[0], [1], [2]])


def test_edges_of_the_second_picture_are_the_control_picture():
    guidance = ideal(control_type="canny")
    square = torch.zeros(1, 3, 24, 24)
    square[..., 6:18, 6:18] = 1.0
    control = guidance.second(square)
    assert control.shape == square.shape and control.unique().tolist() == [0.0, 1.0]
    inside = control[0, 0, 9:15, 9:15].sum() + control[0, 0, :3].sum()
    assert inside == 0 and 30 < control[0, 0].sum() < 60


@pytest.mark.parametrize("use_sds", [True, False])
def test_a_random_pipeline_edits_and_guides_under_perp_neg(use_sds):
    guidance = ControlNetGuidance(
        {"pretrained_model_name_or_path": RANDOM, "control_type": "canny", "use_sds": use_sds,
         "diffusion_steps": 2, "view_dependent_prompting": True, "condition_scale": 0.7}
    )  # fmt: skip
    assert guidance.denoiser.conditioning_scale == 0.7
    utils = StableDiffusionPromptProcessor(
        {"pretrained_model_name_or_path": RANDOM, "prompt": "a house", "use_perp_neg": True}
    )()
    angles = {name: one.float() for name, one in MODEL.cameras().items()}
    rgb = MODEL.pictures(3, 40).float().requires_grad_()
    out = guidance(rgb, utils, **angles, cond_rgb=MODEL.pictures(3, 30).float(), guidance_eval=use_sds)
    if use_sds:
        out.loss_sds.backward()
        assert (rgb.grad.flatten(1).norm(dim=1) > 0).all() and len(out.eval.texts) == 3
    else:
        assert out["edit_images"].shape == (3, 40, 40, 3)


@pytest.mark.parametrize("kind", ["normal", "depth"])
def test_an_annotator_that_is_not_here_is_named_before_anything_is_loaded(kind):
    with pytest.raises(ConfigError, match="cond_is_control"):
        ControlNetGuidance({"pretrained_model_name_or_path": "/nowhere", "control_type": kind})
    assert torch.equal(
        ideal(control_type=kind, cond_is_control=True).second(torch.ones(1, 3, 2, 2)), torch.ones(1, 3, 2, 2)
    )


def test_wrong_values():
    with pytest.raises(ConfigError, match="control_type"):
        ideal(control_type="scribble")
    with pytest.raises(ConfigError, match="canny_lower_bound"):
        ideal(canny_lower_bound=200)


def test_name():
    assert find("stable-diffusion-controlnet-guidance", "guidance") is ControlNetGuidance
