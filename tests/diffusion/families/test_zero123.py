import math

import pytest
import torch

from maquette.core.errors import UserError
from maquette.diffusion.denoiser import load_denoiser
from maquette.diffusion.families.zero123 import (
    CLIP_MEAN,
    CLIP_STD,
    PictureCondition,
    Zero123Denoiser,
    relative_camera,
)
from maquette.diffusion.load import load_pipeline

CPU = torch.device("cpu")
NAME = "maquette/random-tiny?family=zero123"


@pytest.fixture(scope="module")
def denoiser():
    return load_denoiser(NAME, torch.float32, CPU)


def cameras(**more):
    degrees = torch.tensor([[20.0, 90.0], [50.0, -90.0], [-10.0, 0.0]])
    return relative_camera(
        degrees[:, 0],
        degrees[:, 1],
        torch.tensor([1.5, 2.0, 1.0]),
        from_elevation_deg=20.0,
        from_azimuth_deg=0.0,
        from_distance=1.5,
        **more,
    )


def ask(denoiser, x_t, t, condition):
    return denoiser.predict_noise(x_t, t, condition.tokens, picture=condition.latents)


def test_the_four_numbers_of_a_camera():
    expected = [[0, 1, 0, 0], [-math.pi / 6, -1, 0, 0.5], [math.pi / 6, 0, 1, -0.5]]
    torch.testing.assert_close(cameras(), torch.tensor(expected, dtype=torch.float32), atol=1e-6, rtol=1e-6)
    assert torch.allclose(cameras(stable=True)[:, 3], torch.tensor(math.radians(70)))
    torch.testing.assert_close(cameras(stable=True)[:, :3], cameras()[:, :3])


def test_a_prediction_is_that_of_the_parts_by_hand(denoiser, seeded):
    """As in the authors' code: raw latents beside the noised ones, embedding and camera through one layer."""
    one = load_pipeline(NAME)
    images = torch.rand(1, 3, 16, 16, generator=seeded)
    reference = torch.nn.functional.interpolate(images, (32, 32), mode="bilinear")
    condition = denoiser.condition(*denoiser.picture(reference), cameras())
    small = torch.nn.functional.interpolate(reference, (16, 16), mode="bicubic", align_corners=True)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    embedding = one.image_encoder((small - mean) / std).image_embeds
    tokens = one.cc_projection(torch.cat([embedding.expand(3, -1), cameras()], -1))[:, None]
    raw = one.vae.encode(reference * 2 - 1).latent_dist.mode().expand(3, -1, -1, -1)
    x_t, t = torch.randn(3, 4, 8, 8, generator=seeded), torch.tensor([10, 500, 990])
    expected = one.unet(torch.cat([x_t, raw], 1), t, tokens).sample
    torch.testing.assert_close(ask(denoiser, x_t, t, condition), expected, rtol=1e-5, atol=1e-6)


def test_without_a_picture_everything_is_zero(denoiser):
    condition = denoiser.condition(*denoiser.picture(torch.rand(1, 3, 40, 40)), cameras())
    nothing = condition.zeros()
    both = PictureCondition.cat([condition, nothing])
    assert condition.tokens.shape == (3, 1, 32) and condition.latents.shape == (3, 4, 8, 8)
    assert not nothing.tokens.any() and not nothing.latents.any()
    assert torch.equal(both[:3].tokens, condition.tokens) and torch.equal(both[3:].latents, nothing.latents)


def test_views_of_a_batch_do_not_touch(denoiser, seeded):
    condition = denoiser.condition(*denoiser.picture(torch.rand(1, 3, 32, 32, generator=seeded)), cameras())
    x_t, t = torch.randn(3, 4, 8, 8, generator=seeded), torch.tensor([20, 400, 980])
    together = ask(denoiser, x_t, t, condition)
    for i in range(3):
        row = slice(i, i + 1)
        alone = ask(denoiser, x_t[row], t[row], condition[row])
        torch.testing.assert_close(together[row], alone, rtol=1e-4, atol=1e-5)


def test_a_unet_that_reads_no_picture_is_refused(denoiser):
    one = load_pipeline("maquette/random-tiny")
    with pytest.raises(UserError, match="4 channels"):
        Zero123Denoiser(one.unet, one.vae, one.scheduler, denoiser.image_encoder, denoiser.projection)


def test_the_other_port_of_the_weights_loads_too(tmp_path):
    """The index of a repository with code of its own, and the layer under its other name."""
    import json

    from maquette.diffusion.families.view_projection import CLIPCameraProjection

    load_pipeline(NAME).save_pretrained(tmp_path)
    CLIPCameraProjection(32, 4).save_pretrained(tmp_path / "clip_camera_projection")
    index = json.loads((tmp_path / "model_index.json").read_text())
    index["_class_name"] = "Zero1to3StableDiffusionPipeline"
    del index["cc_projection"]
    index["clip_camera_projection"] = ["pipeline_zero1to3", "CLIPCameraProjection"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    found = load_denoiser(str(tmp_path), torch.float32, CPU)
    assert found.projection.proj.weight.shape == (32, 36)
