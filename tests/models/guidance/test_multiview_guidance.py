import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from maquette.core.errors import ConfigError, UserError
from maquette.core.registry import find
from maquette.diffusion import score
from maquette.diffusion.families.multiview_unet import view_cameras
from maquette.models.guidance.multiview import MultiViewGuidance
from maquette.models.prompt_processors.stable_diffusion import StableDiffusionPromptProcessor
from maquette.ops.cameras import look_at, orbit_to_position

MODEL = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("gaussian_model.py"))))
RANDOM = "maquette/random-tiny?family=multiview"


class ObjectModel(MODEL.GaussianModel):
    """Views lie around the text and a number of their camera, and near the mean of their object."""

    n_views = 2

    def predict_noise(self, x_t, t, text, pooled=None, cameras=None):
        mean = x_t.unflatten(0, (-1, 2)).mean(1).repeat_interleave(2, 0)
        return self.noise_at(x_t, t, text[:, 0, 0].view(-1, 1, 1, 1) + place(cameras) + 0.1 * mean)


def place(cameras):
    return cameras[:, 3].view(-1, 1, 1, 1)  # x of the camera


def c2w(rows):
    angles = MODEL.cameras(rows)
    position = orbit_to_position(*angles.values())
    up = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64).expand_as(position)
    return look_at(position, torch.zeros_like(position), up)


def ideal(**options):
    return MultiViewGuidance({"view_dependent_prompting": True, **options}, ObjectModel())


def ask(guidance, rows=range(6)):
    return MODEL.ask(guidance, rows, MODEL.prompt(), c2w=c2w(list(rows)))


def predictions(x_t, a, rows):
    angles, utils = MODEL.cameras(rows), MODEL.prompt()
    texts = utils.encoding(angles["elevation"], angles["azimuth"]).hidden[: len(rows), :, :, None]
    own = place(view_cameras(c2w(rows))) + 0.1 * x_t.unflatten(0, (-1, 2)).mean(1).repeat_interleave(2, 0)
    return [MODEL.noise_of(x_t, text + own, a) for text in (texts, MODEL.NEGATIVE)]


def test_the_loss_of_the_paper_is_exactly_the_distance_to_the_clean_latents():
    rows = [0, 1, 2, 3]
    grad, x_t, a, noise = ask(ideal(guidance_scale=7.5, recon_std_rescale=0.5), rows)
    eps, plain = predictions(x_t, a, rows)
    clean = score.predicted_x0(x_t, plain + 7.5 * (eps - plain), a)
    spread = (one.flatten(1).std(1).view(-1, 1, 1, 1) for one in (score.predicted_x0(x_t, eps, a), clean))
    ratio = next(spread) / next(spread)
    x = (x_t - (1 - a).view(-1, 1, 1, 1).sqrt() * noise) / a.view(-1, 1, 1, 1).sqrt()
    MODEL.exactly(grad, x - 0.5 * (1 + ratio) * clean)


def test_views_of_an_object_share_their_level_and_each_has_its_camera():
    rows = [0, 1, 2, 3]
    grad, x_t, a, noise = ask(ideal(guidance_scale=7.5, recon_loss=False), rows)
    assert a[0] == a[1] and a[2] == a[3] and a[0] != a[2]
    eps, plain = predictions(x_t, a, rows)
    MODEL.exactly(grad, (1 - a).view(-1, 1, 1, 1) * (plain + 7.5 * (eps - plain) - noise))


def test_a_batch_is_its_objects():
    guidance = ideal()
    assert MODEL.is_its_parts(lambda rows: ask(guidance, rows)[0], [[0, 1], [2, 3], [4, 5]])


def test_a_random_pipeline_guides_and_shows_whole_objects():
    options = {"pretrained_model_name_or_path": RANDOM, "max_items_eval": 1, "eval_steps": 2}
    guidance = MultiViewGuidance(options)
    utils = StableDiffusionPromptProcessor(
        {"pretrained_model_name_or_path": "maquette/random-tiny", "prompt": "a house"}
    )()
    rgb = MODEL.pictures(4, 40).float().requires_grad_()
    angles = {name: one.float() for name, one in MODEL.cameras(range(4)).items()}
    out = guidance(rgb, utils, **angles, c2w=c2w(range(4)).float(), guidance_eval=True)
    out.loss_sds.backward()
    assert (rgb.grad.flatten(1).norm(dim=1) > 0).all()
    assert out.eval.imgs_1orig.shape == (2, 32, 32, 3)


def test_what_cannot_be_used_is_named():
    with pytest.raises(UserError, match=r"batch has 3[\s\S]*data\.n_view=2"):
        ask(ideal(), range(3))
    with pytest.raises(UserError, match="c2w"):
        MODEL.ask(ideal(), range(2), MODEL.prompt())
    with pytest.raises(ConfigError, match="n_view"):
        ideal(n_view=4)
    with pytest.raises(ConfigError, match="guidance_rescale"):
        ideal(guidance_rescale=0.5)
    with pytest.raises(ConfigError, match=r"system\.guidance\.rule"):
        ideal(rule="csd")
    with pytest.raises(ConfigError, match="pretrained_model_name_or_path"):
        MultiViewGuidance({})


def test_name():
    assert find("multiview-diffusion-guidance", "guidance") is MultiViewGuidance
