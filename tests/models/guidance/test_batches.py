"""A batch is its samples: bit for bit with a model whose answers are known, to 1e-5 with a UNet."""

import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from maquette.core.random import RandomStreams
from maquette.models.guidance.deep_floyd import DeepFloydGuidance
from maquette.models.guidance.stable_diffusion import StableDiffusionGuidance
from maquette.models.guidance.stable_diffusion_sdi import StableDiffusionSDIGuidance
from maquette.models.guidance.stable_diffusion_vsd import StableDiffusionVSDGuidance
from maquette.models.guidance.unified import StableDiffusionUnifiedGuidance
from maquette.models.prompt_processors.deep_floyd import DeepFloydPromptProcessor
from maquette.models.prompt_processors.stable_diffusion import StableDiffusionPromptProcessor

ideal = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("gaussian_model.py"))))
TINY = "maquette/random-tiny"
ROWS = 5


class TextGaussian(ideal.GaussianModel):
    """The mean of the data is the number that the text is."""

    image_size = latent_size = 12

    def predict_noise(self, x_t, t, text, pooled=None):
        return self.noise_at(x_t, t, text[:, 0, 0].double())


class Renderings(nn.Module):
    """A model of the renderings: their mean is 0.3, whatever the text."""

    def __init__(self, guiding):
        super().__init__()
        self.pretrained_noise = guiding.predict_noise
        self.noise_at = guiding.noise_at

    def adapted_noise(self, x_t, t, text, pooled=None, camera=None):
        return self.noise_at(x_t, t, torch.full((len(x_t),), 0.3))


def build(kind, **options):
    """A guidance whose models are ideal."""
    guided = {"guidance_scale": 7.5, **options}
    if not issubclass(kind, nn.Module) or options.get("guidance_type") == "sds":
        return kind(guided, TextGaussian())
    guidance = kind({**guided, "pretrained_model_name_or_path": TINY})
    guidance.denoiser = TextGaussian()
    guidance.variational = Renderings(guidance.denoiser)
    guidance.adapter_loss = lambda latents, *rest: latents.sum() * 0.0
    return guidance


def cameras(rows):
    c2w = torch.eye(4).expand(len(rows), 4, 4)
    return {**ideal.cameras(rows), "c2w": c2w, "mvp_mtx": c2w}


def gradients(guidance, rows, prompt, rgb):
    """Every gradient that a guidance finds, before it is divided by the batch size."""
    found = []
    limited = type(guidance).limited
    guidance.limited = lambda grad: found.append(limited(guidance, grad)) or found[-1]
    guidance(rgb[list(rows)], prompt, **cameras(rows), rng=RandomStreams(0).at(3, rows))
    return found


GUIDANCES = {
    **{
        rule: (StableDiffusionGuidance, {"rule": rule})
        for rule in ("sds", "sjc", "csd", "nfsd", "ism", "sdi", "reconstruction")
    },
    "rescaled, in pixels": (StableDiffusionGuidance, {"guidance_rescale": 0.7, "use_img_loss": True}),
    "inversion": (StableDiffusionSDIGuidance, {}),
    "variational": (StableDiffusionVSDGuidance, {"use_img_loss": True}),
    "unified sds": (StableDiffusionUnifiedGuidance, {"guidance_type": "sds"}),
    "unified vsd": (StableDiffusionUnifiedGuidance, {"guidance_type": "vsd"}),
    "deep floyd": (DeepFloydGuidance, {"use_img_loss": True}),
}


@pytest.mark.parametrize("perp_neg", [False, True])
@pytest.mark.parametrize(("kind", "options"), GUIDANCES.values(), ids=GUIDANCES.keys())
def test_bit_for_bit_with_an_ideal_model(kind, options, perp_neg):
    guidance, prompt = build(kind, **options), replace(ideal.prompt(), use_perp_neg=perp_neg)
    rgb = ideal.pictures(ROWS, size=12)
    alone = [gradients(guidance, [i], prompt, rgb) for i in range(ROWS)]
    for count in (2, 3, ROWS):
        together = gradients(guidance, range(count), prompt, rgb)
        assert len(together) == len(alone[0]) > 0
        for kind_of, grad in enumerate(together):
            assert grad.abs().sum() > 0
            for i in range(count):
                assert torch.equal(grad[i], alone[i][kind_of][0])


NETWORKS = {
    "stable diffusion": (StableDiffusionGuidance, StableDiffusionPromptProcessor, TINY, {}),
    "two encoders": (StableDiffusionGuidance, StableDiffusionPromptProcessor, f"{TINY}?encoders=2", {}),
    "unified vsd": (
        StableDiffusionUnifiedGuidance,
        StableDiffusionPromptProcessor,
        TINY,
        {"guidance_type": "vsd", "vsd_camera_condition_type": "spherical"},
    ),
    "deep floyd": (DeepFloydGuidance, DeepFloydPromptProcessor, TINY, {}),
}


@pytest.mark.parametrize(("kind", "processor", "model", "options"), NETWORKS.values(), ids=NETWORKS.keys())
def test_to_one_in_a_hundred_thousand_with_a_unet(kind, processor, model, options):
    named = {"pretrained_model_name_or_path": model}
    prompt = processor({"prompt": "a red car", "use_perp_neg": True, **named})()
    guidance = kind({"guidance_scale": 7.5, **named, **options})
    rgb = ideal.pictures(ROWS, size=guidance.denoiser.image_size).float()
    alone = [gradients(guidance, [i], prompt, rgb) for i in range(3)]
    for kind_of, grad in enumerate(gradients(guidance, range(3), prompt, rgb)):
        for i in range(3):
            apart = (grad[i] - alone[i][kind_of][0]).square().mean().sqrt()
            assert apart <= 1e-5  # where the noise has a spread of one
