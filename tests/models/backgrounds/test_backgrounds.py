import pytest
import torch

from maquette.core.errors import ConfigError
from maquette.core.random import RandomStreams
from maquette.models.backgrounds.neural_environment_map import NeuralEnvironmentMapBackground
from maquette.models.backgrounds.solid_color import SolidColorBackground
from maquette.models.backgrounds.textured import TexturedBackground
from maquette.models.networks.init import init_parameters
from maquette.ops.environment import texel_directions

STREAMS = RandomStreams(0)


def directions(views=1, size=4):
    drawn = torch.randn(views, size, size, 3, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.normalize(drawn, dim=-1)


def test_solid_color():
    background = SolidColorBackground({"color": [0.1, 0.5, 0.9]})
    color = background(directions(2))
    assert color.shape == (2, 4, 4, 3)
    torch.testing.assert_close(color[1, 2, 3], torch.tensor([0.1, 0.5, 0.9]))
    assert not list(background.parameters())
    assert len(list(SolidColorBackground({"learned": True}).parameters())) == 1


def test_latent_colors_have_their_own_number_of_channels():
    background = SolidColorBackground({"color": [0.1, 0.2, 0.3, 0.4], "n_output_dims": 4})
    assert background(directions()).shape == (1, 4, 4, 4)
    with pytest.raises(ConfigError, match=r"background\.color"):
        SolidColorBackground({"color": [0.1, 0.2]})


@pytest.mark.parametrize("cls", [SolidColorBackground, NeuralEnvironmentMapBackground, TexturedBackground])
def test_random_colors_are_one_a_picture_with_their_probability(cls):
    background = cls({"random_aug": True, "random_aug_prob": 0.3})
    rng = STREAMS.at(5, range(600))
    dirs = directions().expand(600, -1, -1, -1)
    color = background(dirs, rng=rng)
    plain = background.eval()(dirs)
    changed = (color != plain).flatten(1).any(dim=1)
    assert changed.float().mean().item() == pytest.approx(0.3, abs=0.06)
    assert torch.equal(color[~changed], plain[~changed])
    flat = color[changed]
    assert torch.equal(flat, flat[:, :1, :1].expand_as(flat))
    assert len(torch.unique(flat[:, 0, 0], dim=0)) == len(flat)


def test_a_batch_is_a_stack_of_pictures():
    background = SolidColorBackground({"random_aug": True})
    together = background(directions(3), rng=STREAMS.at(1, [4, 5, 6]))
    alone = torch.cat([background(directions(1), rng=STREAMS.at(1, [i])) for i in (4, 5, 6)])
    assert torch.equal(together, alone)


def test_greys_within_a_range():
    cfg = {
        "random_aug": True,
        "random_aug_prob": 1.0,
        "random_aug_grey": True,
        "random_aug_range": [0.4, 0.6],
    }
    color = SolidColorBackground(cfg)(directions(200), rng=STREAMS.at(0, range(200)))
    assert torch.equal(color[..., 0], color[..., 1]) and torch.equal(color[..., 1], color[..., 2])
    assert 0.4 <= color.min() < 0.42 and 0.58 < color.max() <= 0.6


def test_nothing_is_random_in_evaluation():
    background = SolidColorBackground({"random_aug": True, "random_aug_prob": 1.0}).eval()
    assert (background(directions(), rng=STREAMS.at(0, [0])) == 1).all()


def test_environment_map_is_a_function_of_direction_in_0_to_1():
    background, dirs = NeuralEnvironmentMapBackground({}), directions(2)
    color = background(dirs)
    assert color.shape == (2, 4, 4, 3) and (color > 0).all() and (color < 1).all()
    torch.testing.assert_close(background(dirs.flip(0)), color.flip(0))
    assert color.flatten(0, 2).std(dim=0).min() > 0


def test_environment_map_can_have_one_color_in_evaluation():
    background = NeuralEnvironmentMapBackground({"eval_color": [1.0, 0.5, 0.0]})
    assert (background(directions()) < 1).all()
    assert background.eval()(directions())[0, 1, 2].tolist() == [1.0, 0.5, 0.0]


@pytest.mark.parametrize("color", [0.5, [0.1, 0.2], [0.1, 0.2, 0.3], ["r", "e", "d", "s"]])
def test_that_color_has_a_number_for_each_channel(color):
    with pytest.raises(ConfigError, match=r"system\.background\.eval_color"):
        NeuralEnvironmentMapBackground({"eval_color": color, "n_output_dims": 4})
    made = NeuralEnvironmentMapBackground({"eval_color": [1.0, 0.5, 0.0, 2.0], "n_output_dims": 4})
    assert made.eval()(directions())[0, 1, 2].tolist() == [1.0, 0.5, 0.0, 2.0]


def test_a_wrong_range_is_refused():
    with pytest.raises(ConfigError, match="random_aug_range"):
        SolidColorBackground({"random_aug_range": [0.9, 0.1]})


@pytest.mark.parametrize("color", [0.5, [0.1, 0.2], "red", ["r", "e", "d"]])
def test_a_color_has_a_number_for_each_channel(color):
    with pytest.raises(ConfigError, match=r"system\.background\.color"):
        SolidColorBackground({"color": color})


def test_one_draw_for_all_pictures_of_a_step():
    shared = {"random_aug": True, "random_aug_prob": 1.0, "share_aug_bg": True}
    background = SolidColorBackground(shared)
    dirs = directions().expand(3, -1, -1, -1)
    color = background(dirs, rng=STREAMS.at(5, range(3)))
    assert (color == color[0, 0, 0]).all() and (color != 1.0).any()
    assert torch.equal(background(dirs[:1], rng=STREAMS.at(5, [7])), color[:1])
    assert (background(dirs, rng=STREAMS.at(6, range(3))) != color).any()
    rare = SolidColorBackground({**shared, "random_aug_prob": 0.3})
    drawn = [bool((rare(dirs, rng=STREAMS.at(step, range(3))) != 1.0).any()) for step in range(200)]
    assert 40 < sum(drawn) < 80


def test_a_texture_is_seen_where_it_lies():
    background = TexturedBackground({"height": 8, "width": 12, "color_activation": "none"})
    picture = texel_directions(8, 12)
    background.texture.data = picture.permute(2, 0, 1)[None].clone()
    seen = background(picture[None])
    torch.testing.assert_close(seen, picture[None], atol=1e-5, rtol=0)
    behind = torch.nn.functional.normalize(torch.tensor([[-1.0, 1e-6, 0], [-1.0, -1e-6, 0]]), dim=-1)
    left, right = background(behind[None, None])[0, 0]
    torch.testing.assert_close(left, right, atol=1e-4, rtol=0)


def test_a_texture_learns_and_is_drawn_by_name():
    background = TexturedBackground({"height": 4, "width": 4})
    background(directions()).sum().backward()
    assert (background.texture.grad != 0).any()
    first = background.texture.detach().clone()
    init_parameters(background, seed=3)
    second = background.texture.detach().clone()
    init_parameters(background, seed=3)
    assert not torch.equal(first, second) and torch.equal(background.texture.detach(), second)
    with pytest.raises(ConfigError, match="height"):
        TexturedBackground({"height": 0})
