"""Adapters of a recipe: in what guides, in what trains along, and in what the prompt means."""

import pytest
import torch

from maquette.diffusion.finetuning import FineTuner, Plan
from maquette.diffusion.load import load_pipeline
from maquette.models.guidance.stable_diffusion import StableDiffusionGuidance
from maquette.models.guidance.stable_diffusion_vsd import StableDiffusionVSDGuidance
from maquette.models.prompt_processors.stable_diffusion import StableDiffusionPromptProcessor

TINY = "maquette/random-tiny"
MODEL = {"pretrained_model_name_or_path": TINY}


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A folder with an adapter that changes the model, and a new word that means something of its own."""
    model = FineTuner.load(TINY, Plan(words={"<new1>": "c"}), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for one in model.parameters():
            one += 0.3 * torch.randn(one.shape, generator=generator)
    folder = tmp_path_factory.mktemp("adapter")
    model.save(folder, torch.float32)
    return folder


def question():
    generator = torch.Generator().manual_seed(1)
    x, text = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 5, 32, generator=generator)
    return x, torch.tensor([300, 600]), text


def test_every_guidance_sees_the_same_adapted_model(adapter):
    plain = load_pipeline(TINY).unet(*question()).sample
    options = {**MODEL, "lora": [{"path": str(adapter), "scale": 1.0}]}
    sds = StableDiffusionGuidance(options).denoiser.predict_noise(*question())
    vsd = StableDiffusionVSDGuidance(options)
    torch.testing.assert_close(vsd.variational.pretrained_noise(*question()), sds)
    torch.testing.assert_close(vsd.variational.adapted_noise(*question()), sds)  # its own adapter is fresh
    assert not torch.allclose(sds, plain)


def test_at_scale_zero_the_guidance_has_the_pretrained_model_bit_for_bit(adapter):
    guidance = StableDiffusionGuidance({**MODEL, "lora": [{"path": str(adapter), "scale": 0.0}]})
    plain = StableDiffusionGuidance(MODEL).denoiser.predict_noise(*question())
    assert torch.equal(guidance.denoiser.predict_noise(*question()), plain)


def test_the_prompt_processor_knows_the_new_word(adapter):
    def text(prompt, **more):
        return StableDiffusionPromptProcessor({**MODEL, "prompt": prompt, **more})().text.hidden

    learned = text("a <new1>", lora=[str(adapter)])
    assert learned.shape == text("a c").shape and not torch.allclose(learned, text("a c"))
    torch.testing.assert_close(text("a c", lora=[str(adapter)]), text("a c"))
