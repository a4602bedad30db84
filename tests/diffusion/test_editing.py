import pytest
import torch

from maquette.diffusion import editing
from maquette.diffusion.editing import PictureEdit, edit_pictures
from maquette.diffusion.prompt_to_prompt import EditOptions


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MAQUETTE_CACHE", str(tmp_path / "cache"))


def edit(**options):
    prompts = {"source": "a red mushroom , front view", "target": "a blue mushroom , front view"}
    return edit_pictures(PictureEdit(model="maquette/toyworld", steps=8, **prompts, **options))


def test_the_color_changes_and_the_shape_stays():
    edited = edit()
    red = lambda picture: (picture[..., 0] - picture[..., 2]).max()
    blue = lambda picture: (picture[..., 2] - picture[..., 0]).max()
    assert red(edited.before) > 0.3 and red(edited.after) < 0.2 and blue(edited.after) > 0.3
    controlled = (edited.after - edited.before).abs().mean()
    assert controlled < (edited.without_control - edited.before).abs().mean()
    assert set(edited.maps_after) == {"a", "blue", "mushroom", "front", "view"}


def test_carrying_everything_over_to_the_same_prompt_gives_the_same_picture():
    prompt = "a red mushroom , front view"
    edited = edit_pictures(PictureEdit(model="maquette/toyworld", source=prompt, target=prompt, steps=3))
    torch.testing.assert_close(edited.after, edited.before, atol=1e-4, rtol=0)


def test_without_any_control_the_target_is_left_alone():
    edited = edit(options=EditOptions(cross_until=0.0, self_until=0.0))
    torch.testing.assert_close(edited.after, edited.without_control, atol=1e-4, rtol=0)


MODELS = [("maquette/random-tiny?encoders=2", True), ("maquette/toyworld", False)]


@pytest.mark.parametrize(("model", "zero"), MODELS)
def test_no_text_is_what_the_model_was_trained_with(model, zero):
    found = editing._encoded(PictureEdit(model=model, source="a red car", target="a blue car"))
    assert (found.hidden[:2].count_nonzero() == 0) == zero
    assert found.hidden[2:].count_nonzero() > 0 and not torch.equal(found.hidden[2], found.hidden[3])
    if zero:
        assert found.pooled[:2].count_nonzero() == 0 and found.pooled[2:].count_nonzero() > 0
