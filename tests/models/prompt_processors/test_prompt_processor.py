import pytest
import torch

from maquette.core.errors import ConfigError
from maquette.core.registry import find
from maquette.diffusion.text import encode_prompts
from maquette.models.prompt_processors import base
from maquette.models.prompt_processors.prompt_utils import PerpNeg
from maquette.models.prompt_processors.stable_diffusion import StableDiffusionPromptProcessor

TINY = "maquette/random-tiny"
FOUR = torch.tensor([90.0, 0.0, 180.0, 10.0])
HEIGHTS = torch.tensor([0.0, 0.0, 0.0, 80.0])
"""Cameras that see the side, the front, the back and the top."""


def build(**options):
    return StableDiffusionPromptProcessor(
        {"prompt": "a red car", "pretrained_model_name_or_path": TINY, **options}
    )


def rows(*prompts, model=TINY):
    return encode_prompts(model, prompts).hidden


def test_it_is_registered():
    assert find("stable-diffusion-prompt-processor", "prompt-processor") is StableDiffusionPromptProcessor


def test_each_camera_gets_its_words_and_the_negatives_come_last():
    found = build(negative_prompt="blurry")().get_text_embeddings(HEIGHTS, FOUR, torch.ones(4))
    views = [f"a red car, {name} view" for name in ("side", "front", "back", "overhead")]
    torch.testing.assert_close(found, rows(*views, *["blurry"] * 4))


def test_without_view_words_every_camera_gets_the_prompt():
    found = build()().get_text_embeddings(HEIGHTS, FOUR, torch.ones(4), view_dependent_prompting=False)
    torch.testing.assert_close(found, rows(*["a red car"] * 4, *[""] * 4))


def test_a_view_may_have_a_text_of_its_own():
    processor = build(prompt_back="the boot of a red car")
    assert processor.prompts_vd[2] == "the boot of a red car"
    found = processor().get_text_embeddings(HEIGHTS, FOUR, torch.ones(4))
    torch.testing.assert_close(found[2:3], rows("the boot of a red car"))


def test_toyworld_words():
    utils = build(directions="toyworld")()
    found = utils.get_text_embeddings(torch.tensor([20.0]), torch.tensor([-45.0]), torch.ones(1))
    torch.testing.assert_close(found, rows("a red car, front left view, level", ""))


def test_directions_of_a_recipe():
    utils = build(
        directions=[{"name": "any"}, {"name": "up", "prompt": "top of {}", "elevation": [45, 90]}]
    )()
    assert utils.prompts_vd == ["a red car, any view", "top of a red car"]


def test_a_library_prompt():
    assert build(prompt="lib:red_mushroom").prompt == "a red mushroom"


LONG = "a red car with four round wheels and two bright lamps, standing on a road in the sun, near a wall"


@pytest.mark.parametrize("negative", ["", "blurry", LONG])
def test_a_long_prompt_has_more_tokens_and_so_has_everything_beside_it(negative):
    utils = build(prompt=LONG, negative_prompt=negative, use_perp_neg=True)()
    window = rows("").shape[1]
    found = utils.get_text_embeddings(HEIGHTS, FOUR, torch.ones(4))
    assert found.shape[:2] == (8, 2 * window)
    assert utils.get_text_embeddings_perp_neg(HEIGHTS, FOUR)[0].shape[:2] == (16, 2 * window)
    empty = rows("", "").flatten(0, 1)
    if negative:
        torch.testing.assert_close(utils.null.hidden[0], empty)
    else:
        torch.testing.assert_close(found[4], empty)
    if negative == "blurry":
        torch.testing.assert_close(found[4], rows("blurry", "").flatten(0, 1))


def test_a_long_prompt_may_be_cut_as_well(caplog):
    with caplog.at_level("WARNING"):
        utils = build(prompt=LONG, long_prompts=False)()
    assert "the end of the prompt is ignored" in caplog.text
    torch.testing.assert_close(utils.text.hidden, rows(LONG))


def test_a_long_negative_prompt_is_read_whole_too():
    utils = build(negative_prompt=LONG)()
    assert utils.uncond.hidden.shape == utils.text.hidden.shape == utils.null.hidden.shape
    assert not torch.equal(utils.uncond.hidden[:, 77:], utils.null.hidden[:, 77:])


def test_debiased_prompts_stand_in_the_words_of_their_views_and_overrides_win(monkeypatch):
    asked = []

    def ask(model, views):
        asked.append((model, tuple(views)))
        likely = torch.tensor([[0.25] * 4, [0.25] * 4, [0.2, 0.1, 0.6, 0.1], [0.25] * 4])
        return lambda prompts: likely[: len(prompts)]

    monkeypatch.setattr(base, "view_probabilities", ask)
    processor = build(
        prompt="a smiling dog",
        use_prompt_debiasing=True,
        pretrained_model_name_or_path_prompt_debiasing="some-bert",
        prompt_overhead="a dog from above",
        view_dependent_prompt_front=True,
    )
    assert processor.prompts_vd == [
        "side view of a smiling dog",
        "front view of a smiling dog",
        "backside view of a dog",
        "a dog from above",
    ]
    assert asked == [("some-bert", ("side", "front", "back", "overhead"))]
    torch.testing.assert_close(processor().text_vd.hidden[2:3], rows("backside view of a dog"))
    torch.testing.assert_close(processor().text.hidden, rows("a smiling dog"))


def test_two_encoders_have_pooled_text_and_zeros_for_no_text():
    model = f"{TINY}?encoders=2"
    utils = build(pretrained_model_name_or_path=model)()
    expected = encode_prompts(model, ["a red car, side view"])
    pooled = utils.pooled(HEIGHTS[:1], FOUR[:1])
    torch.testing.assert_close(pooled, torch.cat([expected.pooled, torch.zeros_like(expected.pooled)]))
    assert utils.get_text_embeddings(HEIGHTS[:1], FOUR[:1])[1].count_nonzero() == 0
    named = build(pretrained_model_name_or_path=model, negative_prompt="blurry")()
    assert named.pooled(HEIGHTS[:1], FOUR[:1])[1].count_nonzero() > 0


@pytest.mark.parametrize(
    ("azimuth", "cond", "negatives", "weights"),
    [
        (0.0, {"front": 1.0}, ("front", "side"), (4 * 0.60653 - 2.426, 4 - 2.426)),
        (-45.0, {"front": 0.5, "side": 0.5}, ("front", "side"), (4 * 0.7788 - 2.426, 4 * 0.7788 - 2.426)),
        (135.0, {"side": 0.5, "back": 0.5}, ("side", "front"), (0.7788 - 0.606, 0.7788 + 0.967)),
        (-180.0, {"back": 1.0}, ("side", "front"), (1 - 0.606, 1 + 0.967)),
    ],
)
def test_perp_neg_mixes_neighbours_and_pushes_them_away(azimuth, cond, negatives, weights):
    utils = build(use_perp_neg=True)()
    text = {name: rows(f"a red car, {name} view") for name in ("side", "front", "back", "overhead")}
    found, got = utils.get_text_embeddings_perp_neg(torch.zeros(1), torch.tensor([azimuth]), torch.ones(1))
    mixed = sum(share * text[name] for name, share in cond.items())
    expected = torch.cat([mixed, rows(""), *(text[name] for name in negatives)])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(got, -torch.tensor([weights]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("azimuth", [90.0, 91.0, 135.0, 180.0, -100.0])
def test_perp_neg_never_pushes_a_back_view_away_from_the_back(azimuth):
    found, weights = build(use_perp_neg=True)().get_text_embeddings_perp_neg(
        torch.zeros(1), torch.tensor([azimuth]), torch.ones(1)
    )
    strongest = found[2:][weights[0].argmin()]
    torch.testing.assert_close(strongest[None], rows("a red car, front view"))
    assert not any(torch.equal(one[None], rows("a red car, back view")) for one in found[2:])


def test_perp_neg_from_above_has_no_negatives():
    found, weights = build(use_perp_neg=True)().get_text_embeddings_perp_neg(
        torch.tensor([80.0]), torch.tensor([30.0]), torch.ones(1)
    )
    torch.testing.assert_close(found[:1], rows("a red car, overhead view"))
    assert weights.count_nonzero() == 0


def test_perp_neg_of_a_batch_is_that_of_its_cameras():
    utils = build(use_perp_neg=True)()
    assert utils.use_perp_neg and utils.perp_neg == PerpNeg()
    together, weights = utils.get_text_embeddings_perp_neg(HEIGHTS, FOUR, torch.ones(4))
    negatives = together[8:].unflatten(0, (4, 2))
    for i in range(4):
        one = slice(i, i + 1)
        alone, weight = utils.get_text_embeddings_perp_neg(HEIGHTS[one], FOUR[one], torch.ones(1))
        torch.testing.assert_close(torch.cat([together[one], together[4:5], negatives[i]]), alone)
        torch.testing.assert_close(weights[one], weight)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"prompt": "  "}, "prompt"),
        ({"use_prompt_debiasing": True, "directions": "toyworld"}, "directions"),
        ({"use_prompt_debiasing": True, "prompt_debiasing_mask_ids": [3]}, "prompt_debiasing_mask_ids"),
        ({"use_prompt_debiasing": True, "prompt_debiasing_mask_ids": [-1]}, "prompt_debiasing_mask_ids"),
        ({"use_perp_neg": True, "directions": "toyworld"}, "directions"),
        ({"prompt_back": "x", "directions": "toyworld"}, "prompt_back"),
        ({"directions": "sixteen"}, "directions"),
    ],
)
def test_what_cannot_work_is_refused(options, key):
    with pytest.raises(ConfigError, match=rf"system\.prompt_processor\.{key}"):
        build(**options)
