"""HiFA (Zhu et al. 2023): the loss in pixels and the falling noise level, in float64, and schedules."""

import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from maquette.core.random import RandomStreams
from maquette.models.guidance.deep_floyd import DeepFloydGuidance
from maquette.models.guidance.stable_diffusion import StableDiffusionGuidance
from maquette.models.guidance.stable_diffusion_sdi import StableDiffusionSDIGuidance
from maquette.models.guidance.unified import StableDiffusionUnifiedGuidance

ideal = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("gaussian_model.py"))))
GUIDANCES = {
    "sds": StableDiffusionGuidance,
    "sd": StableDiffusionUnifiedGuidance,
    "sds in pixels": DeepFloydGuidance,
}
SCALE = 7.5


class Affine(ideal.GaussianModel):
    """Latents are 2 x - 1, but decode to something else: 0.9 times the picture, and a little more."""

    def encode(self, images, noise=None):
        return 2 * images - 1

    def decode(self, latents):
        return 0.9 * (latents + 1) / 2 + 0.01

    def predict_noise(self, x_t, t, text, pooled=None):
        return self.noise_at(x_t, t, text[:, 0, 0].double())


def build(kind, **options):
    return kind({"guidance_scale": SCALE, "use_img_loss": True, **options}, Affine())


@pytest.mark.parametrize("kind", GUIDANCES.values(), ids=GUIDANCES.keys())
@pytest.mark.parametrize("weighting", ["sds", "uniform", "fantasia3d"])
def test_both_losses_are_the_papers_formulas(kind, weighting):
    """In latents w (eps_hat - eps); in pixels w sqrt(a / (1 - a)) (x - D(z0_hat))."""
    guidance = build(kind, weighting_strategy=weighting)
    rgb = ideal.pictures().requires_grad_()
    rng = RandomStreams(0).at(1, range(3))
    out = guidance(rgb, ideal.prompt(), **ideal.cameras(), rng=rng)
    name = "sd" if kind is StableDiffusionUnifiedGuidance else "sds"
    (of_latents,) = torch.autograd.grad(out[f"loss_{name}"], rgb, retain_graph=True)
    (of_pixels,) = torch.autograd.grad(out[f"loss_{name}_img"], rgb)

    x = rgb.detach().permute(0, 3, 1, 2)
    a = Affine.alphas_cumprod[out.timestep][:, None, None, None]
    noise = rng.normal("guidance/noise", 3, 4, 4).double()
    z_t = a.sqrt() * (2 * x - 1) + (1 - a).sqrt() * noise
    told = torch.tensor([ideal.SIDE, ideal.FRONT, ideal.BACK], dtype=torch.float64)
    mean = (ideal.NEGATIVE + SCALE * (told - ideal.NEGATIVE))[:, None, None, None]
    eps_hat = (1 - a).sqrt() * (z_t - a.sqrt() * mean) / (a * ideal.SPREAD**2 + 1 - a)
    w = {"sds": 1 - a, "uniform": torch.ones_like(a), "fantasia3d": a.sqrt() * (1 - a)}[weighting]
    in_latents = 2 * w * (eps_hat - noise)
    z0_hat = (z_t - (1 - a).sqrt() * eps_hat) / a.sqrt()
    in_pixels = w * (a / (1 - a)).sqrt() * (x - (0.9 * (z0_hat + 1) / 2 + 0.01))
    ideal.exactly(of_latents.permute(0, 3, 1, 2), in_latents)
    ideal.exactly(of_pixels.permute(0, 3, 1, 2), in_pixels)


@pytest.mark.parametrize("kind", GUIDANCES.values(), ids=GUIDANCES.keys())
def test_the_noise_level_falls_with_the_square_root_of_the_step(kind):
    guidance = build(kind, sqrt_anneal=True, trainer_max_steps=1000, min_step_percent=0.3)
    for step in (0, 1, 10, 90, 250, 640, 999, 1000, 5000):
        guidance.update_step(0, step)
        level = 980 - (980 - 300) * math.sqrt(min(step / 1000, 1.0))
        assert guidance.min_step == guidance.max_step == math.floor(level + 1e-9)
        drawn = guidance.timesteps(RandomStreams(0).at(step, range(4)))
        assert drawn.tolist() == [guidance.min_step] * 4


ALL = {**GUIDANCES, "sdi": StableDiffusionSDIGuidance}


@pytest.mark.parametrize("kind", ALL.values(), ids=ALL.keys())
def test_limits_and_noise_levels_follow_their_schedules(kind):
    schedules = {
        "grad_clip": [0, 0.001, 0.002, 100],
        "min_step_percent": [0, 0.4, 0.2, 100],
        "max_step_percent": [50, 0.98, 0.5, 51],
    }
    more = {"t_anneal": False} if kind is StableDiffusionSDIGuidance else {}
    guidance = kind({"guidance_scale": SCALE, **schedules, **more}, Affine())
    for step, limit, low, high in ((0, 0.001, 400, 980), (50, 0.0015, 300, 980), (200, 0.002, 200, 500)):
        guidance.update_step(0, step)
        assert (guidance.min_step, guidance.max_step) == (low, high)
        rgb = ideal.pictures().requires_grad_()
        out = guidance(rgb, ideal.prompt(), **ideal.cameras(), rng=RandomStreams(0).at(step, range(3)))
        assert ((out.timestep >= low) & (out.timestep <= high)).all()
        main = next(value for name, value in out.items() if name.startswith("loss_"))
        main.backward()
        assert rgb.grad.abs().max().item() == pytest.approx(2 * limit / 3)  # latents are 2 x - 1
