import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from maquette.core.errors import ConfigError, MissingFileError
from maquette.core.random import RandomStreams
from maquette.core.registry import find
from maquette.diffusion.families.zero123 import PictureCondition, relative_camera
from maquette.io.images import write_image
from maquette.models.guidance.stable_zero123 import StableZero123Guidance
from maquette.models.guidance.views import Views
from maquette.models.guidance.zero123 import Zero123Guidance, reference_picture

MODEL = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("gaussian_model.py"))))
REFERENCE = {"cond_elevation_deg": 10.0, "cond_azimuth_deg": 30.0, "cond_camera_distance": 1.2}
RANDOM = "maquette/random-tiny?family=zero123"


class ViewModel(MODEL.GaussianModel):
    """New views lie around a number of the camera, and the reference picture."""

    def picture(self, images):
        return images.double().mean((2, 3)), images.double().mean((1, 2, 3)).view(1, 1, 1, 1)

    def condition(self, embedding, latents, camera):
        numbers = camera.double() @ torch.tensor([0.5, 0.3, 0.2, 0.1], dtype=torch.float64)
        return PictureCondition(numbers.view(-1, 1, 1), latents.expand(len(camera), 3, 4, 4))

    def predict_noise(self, x_t, t, text, pooled=None, picture=None):
        return self.noise_at(x_t, t, text[..., None] + picture)


@pytest.fixture
def reference(tmp_path):
    return str(write_image(tmp_path / "reference.png", MODEL.pictures(1, 20, 4)[0]))


def ideal(reference, kind=Zero123Guidance, **options):
    return kind({"cond_image_path": reference, **REFERENCE, **options}, ViewModel())


def means(reference, rows=range(3), stable=False):
    """Where the data lie for each camera."""
    camera = relative_camera(
        *MODEL.cameras(rows).values(),
        from_elevation_deg=10.0, from_azimuth_deg=30.0, from_distance=1.2, stable=stable,
    )  # fmt: skip
    numbers = camera @ torch.tensor([0.5, 0.3, 0.2, 0.1], dtype=torch.float64)
    return numbers + reference_picture(reference).double().mean()


@pytest.mark.parametrize("kind", [Zero123Guidance, StableZero123Guidance])
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_the_gradient_is_exactly_the_formula_for_each_camera(reference, kind, scale):
    grad, x_t, a, noise = MODEL.ask(ideal(reference, kind, guidance_scale=scale))
    mean = means(reference, stable=kind is StableZero123Guidance)
    assert mean.unique().numel() == 3
    eps, nothing = MODEL.noise_of(x_t, mean, a), MODEL.noise_of(x_t, [0.0] * 3, a)
    MODEL.exactly(grad, (1 - a).view(-1, 1, 1, 1) * (nothing + scale * (eps - nothing) - noise))


def test_other_rules_work_too(reference):
    grad, x_t, a, _ = MODEL.ask(ideal(reference, rule="csd", weighting_strategy="uniform"))
    expected = MODEL.noise_of(x_t, means(reference), a) - MODEL.noise_of(x_t, [0.0] * 3, a)
    MODEL.exactly(grad, expected)


def test_a_batch_is_its_samples(reference):
    guidance = ideal(reference)
    assert MODEL.is_its_parts(lambda rows: MODEL.ask(guidance, rows)[0], [[0], [1], [2]])


@pytest.mark.parametrize("kind", [Zero123Guidance, StableZero123Guidance])
def test_a_batch_is_its_samples_with_a_network(reference, kind):
    guidance = kind({"pretrained_model_name_or_path": RANDOM, "cond_image_path": reference})
    rgb = MODEL.pictures(3, 40).float()

    def gradient(rows):
        x = rgb[rows].clone().requires_grad_()
        angles = {name: one.float() for name, one in MODEL.cameras(rows).items()}
        guidance(x, None, **angles, rng=RandomStreams(0).at(0, rows)).loss_sds.backward()
        return x.grad * len(rows)

    together = gradient([0, 1, 2])
    assert together.norm() > 0
    torch.testing.assert_close(
        together, torch.cat([gradient([row]) for row in range(3)]), rtol=1e-5, atol=1e-5
    )


def test_an_evaluation_says_where_the_cameras_are(reference):
    options = {"cond_image_path": reference, "max_items_eval": 2, "eval_steps": 2}
    guidance = Zero123Guidance({"pretrained_model_name_or_path": "maquette/random-tiny", **options})
    angles = {name: one.float() for name, one in MODEL.cameras().items()}
    shown = guidance(MODEL.pictures(3, 32).float(), None, **angles, guidance_eval=True).eval
    assert shown.texts == ["e0 a90 c1.20", "e20 a0 c1.50"]
    assert shown.imgs_final.shape == (2, 32, 32, 3)


def test_a_step_never_waits_for_the_angles_of_its_cameras(reference, monkeypatch):
    guidance = ideal(reference)
    monkeypatch.setattr(torch.Tensor, "tolist", lambda one: pytest.fail("angles were read"))
    assert len(guidance.condition(Views(prompt_utils=None, **MODEL.cameras())).cameras) == 3


def test_a_reference_is_a_square_on_white(tmp_path):
    picture = torch.zeros(2, 4, 4)
    picture[:, 1:, 3] = 1.0
    found = reference_picture(str(write_image(tmp_path / "wide.png", picture)))
    expected = torch.ones(1, 3, 4, 4)
    expected[:, :, 1:3, 1:] = 0.0
    assert torch.equal(found, expected)


def test_what_cannot_be_used_is_named(reference):
    with pytest.raises(MissingFileError, match="cond_image_path"):
        Zero123Guidance({"cond_image_path": "nowhere.png"}, ViewModel())
    with pytest.raises(ConfigError, match="family zero123"):
        Zero123Guidance({"cond_image_path": reference, "pretrained_model_name_or_path": "maquette/toyworld"})
    with pytest.raises(ConfigError, match="cond_camera_distance"):
        ideal(reference, cond_camera_distance=0.0)


def test_names():
    assert find("zero123-guidance", "guidance") is Zero123Guidance
    assert find("stable-zero123-guidance", "guidance") is StableZero123Guidance
