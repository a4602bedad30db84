import pytest
import torch

from maquette.core.errors import ConfigError
from maquette.diffusion.attention import AttentionCapture
from maquette.diffusion.load import load_pipeline
from maquette.diffusion.prompt_to_prompt import EditOptions, LocalBlend, PromptToPrompt
from maquette.diffusion.word_alignment import align_prompts, token_indices

SOURCE, TARGET = "a red car", "a blue car"


@pytest.fixture(scope="module")
def pipeline():
    return load_pipeline("maquette/toyworld", parts=("unet", "tokenizer", "text_encoder", "scheduler"))


def ask(pipeline, control=None, capture=None):
    """Source and target on the same noise; gives the prediction of both."""
    generator = torch.Generator().manual_seed(0)
    size, channels = pipeline.unet.config.sample_size, pipeline.unet.config.in_channels
    noise = torch.randn(1, channels, size, size, generator=generator).repeat(2, 1, 1, 1)
    text = pipeline.encode_prompt([SOURCE, TARGET], "cpu", 1, False)[0]
    with torch.no_grad():
        return pipeline.unet(noise, torch.tensor([700, 700]), text, return_dict=False)[0]


def edited(pipeline, options, progress=0.0, replace=True):
    alignment = align_prompts(pipeline.tokenizer, SOURCE, TARGET, replace)
    with PromptToPrompt(pipeline.unet, alignment, [(0, 1)], options, pipeline.tokenizer) as control:
        control.progress = progress
        with AttentionCapture(pipeline.unet, kind=None) as seen:
            out = ask(pipeline)
    return out, seen


def test_the_target_looks_where_the_source_looks_and_the_source_is_left_alone(pipeline):
    plain = ask(pipeline)
    out, seen = edited(pipeline, EditOptions())
    torch.testing.assert_close(out[0], plain[0], atol=1e-5, rtol=1e-5)
    assert (out[1] - plain[1]).abs().max() > 1e-4
    for site in seen.sites:
        source, target = seen.maps[site.name][0]
        torch.testing.assert_close(target, source)  # one word for one word: the same columns


def test_after_its_share_of_the_denoising_the_control_does_nothing(pipeline):
    options = EditOptions(cross_until=0.5, self_until=0.5)
    late, _ = edited(pipeline, options, progress=0.5)
    torch.testing.assert_close(late, ask(pipeline), atol=1e-5, rtol=1e-5)
    _, seen = edited(pipeline, EditOptions(cross_until=0.8, self_until=0.2), progress=0.5)
    different = [site.kind for site in seen.sites if not torch.allclose(*seen.maps[site.name][0], atol=1e-6)]
    assert set(different) == {"self"}


def test_refinement_keeps_the_new_word_its_own(pipeline):
    _, seen = edited(pipeline, EditOptions(self_until=0.0), replace=False)
    column = token_indices(pipeline.tokenizer, TARGET, "blue")
    first = next(site.name for site in seen.sites if site.kind == "cross")
    source, target = seen.maps[first][0]
    assert not torch.allclose(target[..., column], source[..., column])
    others = [i for i in range(source.shape[-1]) if i not in column]
    torch.testing.assert_close(target[..., others], source[..., others])


def test_reweighting_multiplies_the_attention_of_a_word(pipeline):
    options = EditOptions(cross_until=1.0, reweight={"blue": 3.0})
    _, seen = edited(pipeline, options)
    column = token_indices(pipeline.tokenizer, TARGET, "blue")
    for site in seen.sites:
        if site.kind == "cross":
            source, target = seen.maps[site.name][0]
            torch.testing.assert_close(target[..., column], 3.0 * source[..., column])


def test_local_blend_keeps_the_source_where_the_words_are_not(pipeline):
    with AttentionCapture(pipeline.unet) as seen:
        ask(pipeline)
    columns = [
        token_indices(pipeline.tokenizer, text, word) for text, word in ((SOURCE, "red"), (TARGET, "blue"))
    ]
    blend = LocalBlend(seen, (columns[0], columns[1]), rows=(0, 1), threshold=0.9)
    mask = blend.mask(16)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    source, target = torch.zeros(4, 16, 16), torch.ones(4, 16, 16)
    torch.testing.assert_close(blend(source, target), mask.expand(4, 16, 16))


def test_each_pair_has_its_own_alignment_and_its_own_progress(pipeline):
    """Four rows: two sources, and two targets of which only the first is still early enough."""
    alignments = [align_prompts(pipeline.tokenizer, SOURCE, target) for target in (TARGET, "a green car")]
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)).repeat(4, 1, 1, 1)
    text = pipeline.encode_prompt([SOURCE, SOURCE, TARGET, "a green car"], "cpu", 1, False)[0]
    control = PromptToPrompt(pipeline.unet, alignments, [(0, 2), (1, 3)], EditOptions(cross_until=0.5))
    control.progress = torch.tensor([0.1, 0.9])
    with control, AttentionCapture(pipeline.unet) as seen, torch.no_grad():
        pipeline.unet(noise, torch.full((4,), 700), text, return_dict=False)
    for maps in seen.maps.values():
        torch.testing.assert_close(maps[0][2], maps[0][0])
        assert not torch.allclose(maps[0][3], maps[0][1], atol=1e-4)


def test_shares_are_shares():
    with pytest.raises(ConfigError, match="cross_until"):
        EditOptions(cross_until=1.5)
