"""The one call of every guidance: by keyword, by position, and with what a batch has more than is needed."""

import pytest
import torch

from maquette.core.errors import UserError
from maquette.core.random import RandomStreams
from maquette.models.guidance.base import BaseGuidance, GuidanceOutput
from maquette.models.guidance.views import Views

RGB, ANGLES = torch.rand(2, 4, 4, 3), torch.tensor([10.0, 20.0])
MATRICES = torch.eye(4).expand(2, 4, 4)


class Remembering(BaseGuidance):
    """Answers nothing, and keeps what it was asked."""

    def configure(self):
        self.set_noise_levels(1000)

    def guide(self, rgb, views, rng, as_latents, with_eval):
        self.asked = (rgb, views, rng, as_latents, with_eval)
        return GuidanceOutput()


class OfItsOwn(BaseGuidance):
    """An extension that makes a whole call of its own."""

    def __call__(self, rgb, prompt_utils, elevation, azimuth, camera_distances, **kwargs):
        return GuidanceOutput(loss_sds=rgb.mean(), extras={"others": sorted(kwargs)})


def test_a_call_by_position_is_the_call_by_keyword():
    guidance, rng = Remembering(), RandomStreams(3).at(1, range(2))
    guidance(RGB, None, ANGLES, -ANGLES, ANGLES / 10, rng, True, True, MATRICES, 2 * MATRICES, RGB[:1])
    by_position = guidance.asked
    guidance(
        rgb=RGB,
        prompt_utils=None,
        elevation=ANGLES,
        azimuth=-ANGLES,
        camera_distances=ANGLES / 10,
        rng=rng,
        rgb_as_latents=True,
        guidance_eval=True,
        c2w=MATRICES,
        mvp_mtx=2 * MATRICES,
        cond_rgb=RGB[:1],
        rays_o=RGB,
        height=4,
    )
    for one, other in zip(vars(by_position[1]).values(), vars(guidance.asked[1]).values(), strict=True):
        assert one is other or torch.equal(one, other)
    assert torch.equal(by_position[1].mvp_mtx, 2 * MATRICES) and by_position[1].source_rgb is None
    assert by_position[2:] == guidance.asked[2:] == (rng, True, True)


def test_without_draws_they_are_those_of_seed_0_at_this_step():
    guidance = Remembering()
    guidance.update_step(0, 7)
    guidance(RGB, None, ANGLES, ANGLES, ANGLES)
    expected = RandomStreams(0).at(7, range(2))
    assert torch.equal(guidance.asked[2].uniform("x"), expected.uniform("x"))


def test_an_extension_may_answer_the_whole_call_itself():
    out = OfItsOwn()(RGB, None, ANGLES, ANGLES, ANGLES, c2w=MATRICES, guidance_eval=False)
    assert out.loss_sds == RGB.mean() and out["others"] == ["c2w", "guidance_eval"]


def test_a_prompt_that_is_needed_and_not_there_is_named():
    with pytest.raises(UserError, match="prompt_processor_type"):
        _ = Views(prompt_utils=None, elevation=ANGLES, azimuth=ANGLES, camera_distances=ANGLES).prompt
