from dataclasses import replace

import pytest
import torch

from maquette.core.errors import ConfigError, UserError
from maquette.core.random import RandomStreams
from maquette.diffusion import distillation, score
from maquette.diffusion.denoiser import load_denoiser
from maquette.models.guidance.edit import EditGuidance
from maquette.models.guidance.rules import Sample
from maquette.models.guidance.view_text import ViewText
from maquette.models.prompt_processors.stable_diffusion import StableDiffusionPromptProcessor

MODEL = "maquette/toyworld"
RED, BLUE = "a red mushroom", "a blue mushroom"


def guidance(**options):
    return EditGuidance({"pretrained_model_name_or_path": MODEL, "half_precision_weights": False, **options})


@pytest.fixture(scope="module")
def edit():
    return guidance()


@pytest.fixture(scope="module")
def words():
    config = {"pretrained_model_name_or_path": MODEL, "directions": "toyworld", "use_cache": False}
    return {prompt: StableDiffusionPromptProcessor({**config, "prompt": prompt})() for prompt in (RED, BLUE)}


def cameras(batch=3):
    azimuth = torch.tensor([90.0, 0.0, 180.0])[:batch]
    return {
        "elevation": torch.full((batch,), 15.0),
        "azimuth": azimuth,
        "camera_distances": torch.ones(batch),
    }


def pictures(seed, batch=3):
    return torch.rand(batch, 64, 64, 3, generator=torch.Generator().manual_seed(seed))


def ask(edit, before, after, source, target, rows=None):
    """The gradient with respect to the edited pictures, and the answer."""
    rows = range(len(after)) if rows is None else rows
    after = after.clone().requires_grad_()
    view = {key: value[: len(rows)] for key, value in cameras().items()}
    view["azimuth"] = cameras()["azimuth"][list(rows)]
    rng = RandomStreams(0).at(0, list(rows))
    out = edit(after, target, **view, rng=rng, source_rgb=before, source_utils=source)
    out.loss_dds.backward()
    return after.grad, out


def test_nothing_changed_is_exactly_nothing(edit, words):
    rgb = pictures(0)
    gradient, out = ask(edit, rgb, rgb, words[RED], words[RED])
    assert gradient.abs().max() == 0 and out.loss_dds == 0 and out.mask.max() == 0


def test_without_control_and_mask_it_is_the_difference_of_two_guided_predictions(words):
    edit = guidance(cross_until=0.0, self_until=0.0, mask_level=0.0, guidance_scale=5.0)
    before, after = (edit.denoiser.encode(edit.prepare(pictures(seed), False)) for seed in (0, 1))
    t, noise = torch.tensor([200, 500, 750]), torch.randn(after.shape)
    texts = [ViewText(words[prompt], *list(cameras().values())[:2], True) for prompt in (BLUE, RED)]
    found, mask = edit.difference(Sample(latents=after, noise=noise, t=t, text=texts[0]), before, texts[1])
    guided = [
        edit.guided_noise(score.add_noise(x, noise, edit.alpha_bar(t)), t, text)
        for x, text in zip((after, before), texts, strict=True)
    ]
    torch.testing.assert_close(
        found, distillation.dds_gradient(*guided, edit.weight(t)), atol=1e-5, rtol=1e-4
    )
    assert mask.min() == 1


def test_a_batch_is_its_samples_one_by_one(edit, words):
    before, after = pictures(0), pictures(1)
    together, out = ask(edit, before, after, words[RED], words[BLUE])
    for row in range(3):
        part = slice(row, row + 1)
        alone, one = ask(edit, before[part], after[part], words[RED], words[BLUE], rows=[row])
        torch.testing.assert_close(together[part] * 3, alone, atol=1e-5, rtol=1e-3)
        torch.testing.assert_close(out.mask[part], one.mask, atol=1e-5, rtol=1e-3)


def test_rescaling_brings_back_the_spread_of_both_predictions(words):
    edit = guidance(cross_until=0.0, self_until=0.0, mask_level=0.0, guidance_scale=5.0, guidance_rescale=0.7)
    before, after = (edit.denoiser.encode(edit.prepare(pictures(seed), False)) for seed in (0, 1))
    t, noise = torch.tensor([200, 500, 750]), torch.randn(after.shape)
    texts = [ViewText(words[prompt], *list(cameras().values())[:2], True) for prompt in (BLUE, RED)]
    found, _ = edit.difference(Sample(latents=after, noise=noise, t=t, text=texts[0]), before, texts[1])
    guided = [
        edit.guided_noise(score.add_noise(x, noise, edit.alpha_bar(t)), t, text)
        for x, text in zip((after, before), texts, strict=True)
    ]
    wanted = distillation.dds_gradient(*guided, edit.weight(t))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_perp_neg_is_refused(edit, words):
    mixed = replace(words[BLUE], use_perp_neg=True)
    with pytest.raises(ConfigError, match="use_perp_neg"):
        ask(edit, pictures(0), pictures(1), words[RED], mixed)


def test_the_gradient_stays_inside_of_the_mask(edit, words):
    before = pictures(0)
    view = list(cameras().values())[:2]
    latents = edit.denoiser.encode(edit.prepare(before, False))
    target, source = (ViewText(words[prompt], *view, True) for prompt in (BLUE, RED))
    t, noise = torch.tensor([300, 300, 300]), torch.randn(latents.shape)
    sample = Sample(latents=latents, noise=noise, t=t, text=target)
    gradient, mask = edit.difference(sample, latents, source)
    assert 0 <= mask.min() and mask.max() <= 1 and mask.amax(dim=(1, 2, 3)).min() > 0.9
    assert mask.std() > 0.1 and gradient.abs().max() > 0


def test_the_model_is_left_as_it_was(edit, words):
    processors = [type(one) for one in edit.unet.attn_processors.values()]
    ask(edit, pictures(0), pictures(1), words[RED], words[BLUE])
    assert [type(one) for one in edit.unet.attn_processors.values()] == processors


def test_dds_is_the_weighted_difference():
    one, other = torch.randn(2, 3, 1, 2, 2, dtype=torch.float64)
    weight = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    expected = torch.stack([weight[i] * (one[i] - other[i]) for i in range(3)])
    torch.testing.assert_close(distillation.dds_gradient(one, other, weight), expected, rtol=0, atol=0)


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="mask_level"):
        guidance(mask_level=1.0)
    with pytest.raises(ConfigError, match="cross_until"):
        guidance(cross_until=2.0)
    with pytest.raises(UserError, match="no UNet"):
        guidance(pretrained_model_name_or_path="maquette/random-tiny?family=flow")


def test_a_unet_whose_attention_cannot_be_controlled_is_refused_when_configured():
    pixels = load_denoiser("maquette/random-tiny?family=pixel", torch.float32, torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"pretrained_model_name_or_path[\s\S]*attention"):
        EditGuidance({"pretrained_model_name_or_path": MODEL}, pixels)
    bare = load_denoiser("maquette/random-tiny", torch.float32, torch.device("cpu"))
    bare.unet = torch.nn.Conv2d(4, 4, 1)
    with pytest.raises(ConfigError, match=r"pretrained_model_name_or_path[\s\S]*attention"):
        EditGuidance({"pretrained_model_name_or_path": MODEL}, bare)


def test_prompts_longer_than_the_text_encoder_are_refused(edit, words):
    config = {"pretrained_model_name_or_path": MODEL, "directions": "toyworld", "use_cache": False}
    long = StableDiffusionPromptProcessor(
        {**config, "prompt": f"a red mushroom and {'a red car and ' * 4}"}
    )()
    with pytest.raises(UserError, match="16 tokens"):
        ask(edit, pictures(0), pictures(1), words[RED], long)


def test_an_edit_needs_what_was_there_before(edit, words):
    with pytest.raises(UserError, match="edit-system"):
        edit(pictures(0), words[RED], **cameras())


def test_latents_are_edited_as_the_pictures_that_they_are_of(edit, words):
    before, after = pictures(0), pictures(1)
    _, out = ask(edit, before, after, words[RED], words[BLUE])
    latents = [edit.denoiser.encode(one.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) for one in (before, after)]
    sources = {"source_rgb": latents[0], "source_utils": words[RED]}
    rng = RandomStreams(0).at(0, range(3))
    found = edit(latents[1], words[BLUE], **cameras(), rng=rng, rgb_as_latents=True, **sources)
    assert torch.equal(found.loss_dds, out.loss_dds) and torch.equal(found.timestep, out.timestep)
