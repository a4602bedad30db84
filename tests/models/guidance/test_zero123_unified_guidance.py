import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from maquette.core.errors import ConfigError, MissingFileError
from maquette.core.random import RandomStreams
from maquette.core.registry import find
from maquette.diffusion import score
from maquette.diffusion.attention_processors import SlicedAttention
from maquette.io.images import write_image
from maquette.models.guidance import latent
from maquette.models.guidance.views import Views
from maquette.models.guidance.zero123 import Zero123Guidance
from maquette.models.guidance.zero123_unified import Zero123UnifiedGuidance

RANDOM = "maquette/random-tiny"
ROWS = [0, 1, 2]


@pytest.fixture
def reference(tmp_path):
    return str(write_image(tmp_path / "reference.png", torch.rand(20, 20, 4)))


def make(reference, kind=Zero123UnifiedGuidance, **options):
    return kind({"pretrained_model_name_or_path": RANDOM, "cond_image_path": reference, **options})


def cameras(rows=ROWS):
    angles = torch.tensor([[0.0, 90.0, 1.2], [20.0, 0.0, 1.5], [-10.0, 180.0, 1.0]])[rows]
    found = {name: angles[:, i] for i, name in enumerate(("elevation", "azimuth", "camera_distances"))}
    return {**found, "c2w": torch.eye(4).expand(len(rows), 4, 4) * angles[:, 2, None, None]}


def ask(guidance, rows=ROWS, name="sd", **more):
    rgb = torch.rand(3, 32, 32, 3, generator=torch.Generator().manual_seed(1))[rows].requires_grad_()
    out = guidance(rgb, None, **cameras(rows), rng=RandomStreams(0).at(0, rows), **more)
    out[f"loss_{name}"].backward()
    return rgb.grad, out


def test_its_sds_is_that_of_the_plain_guidance(reference):
    grad, out = ask(make(reference))
    expected, plain = ask(make(reference, Zero123Guidance), name="sds")
    assert grad.norm() > 0 and torch.equal(out.timestep, plain.timestep)
    torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-6)


def test_a_fresh_adapter_leaves_the_difference_that_guidance_makes(reference):
    guidance = make(reference, guidance_type="vsd", guidance_scale=5.0)
    grad, out = ask(guidance)
    latents, a = out["latents"], guidance.alpha_bar(out.timestep)
    noise = RandomStreams(0).at(0, ROWS).normal("guidance/noise", 4, 8, 8)
    words = guidance.condition(Views(prompt_utils=None, **cameras()))
    eps, nothing = guidance.pair(score.add_noise(latents, noise, a), out.timestep, words)
    wanted = (1 - a).view(-1, 1, 1, 1) * 4.0 * (eps - nothing)
    torch.testing.assert_close(out["loss_sd"], wanted.square().sum() / 6, rtol=1e-3, atol=1e-6)
    out["loss_train_phi"].backward()
    learned = [one.grad for name, one in guidance.named_parameters() if "lora_B" in name]
    assert grad.norm() > 0 and learned and all(one is not None and one.norm() > 0 for one in learned)


@pytest.mark.parametrize("kind", ["sds", "vsd"])
def test_a_batch_is_its_samples(reference, kind):
    guidance = make(reference, guidance_type=kind)
    together, _ = ask(guidance)
    alone = torch.cat([ask(guidance, [row])[0] for row in ROWS])
    torch.testing.assert_close(together, alone / 3, rtol=1e-4, atol=1e-6)


def test_an_evaluation_says_where_the_cameras_are(reference):
    _, out = ask(make(reference, max_items_eval=2, eval_steps=2), guidance_eval=True)
    assert out.eval.texts == ["e0 a90 c1.20", "e20 a0 c1.50"]


def test_adapters_become_part_of_the_model_before_memory_options_act(reference, monkeypatch):
    seen = []

    def fuse(unet, adapters, fuse):
        seen.append(([one.path for one in adapters], {type(one) for one in unet.attn_processors.values()}))

    monkeypatch.setattr(latent, "load_adapters", fuse)
    guidance = make(reference, lora=["a.safetensors"], memory="slicing")
    assert seen == [(["a.safetensors"], {AttnProcessor2_0})]
    assert {type(one) for one in guidance.denoiser.unet.attn_processors.values()} == {SlicedAttention}


def test_what_cannot_be_used_is_named(reference):
    with pytest.raises(ConfigError, match="family zero123"):
        make(reference, pretrained_model_name_or_path="maquette/toyworld")
    with pytest.raises(MissingFileError, match="cond_image_path"):
        make("")
    with pytest.raises(ConfigError, match="cond_elevation_deg"):
        make(reference, cond_elevation_deg=100.0)


def test_name():
    assert find("zero123-unified-guidance", "guidance") is Zero123UnifiedGuidance
