import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from maquette.core.errors import UserError
from maquette.diffusion.denoiser import load_denoiser
from maquette.diffusion.families.multiview import MultiViewDenoiser
from maquette.diffusion.families.multiview_unet import view_cameras
from maquette.diffusion.load import load_pipeline
from maquette.diffusion.memory import Memory

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def denoiser():
    return load_denoiser("maquette/random-tiny?family=multiview", torch.float32, CPU)


@pytest.fixture
def views(seeded):
    """Two objects of two views: noised latents, levels, text, cameras."""
    return (
        torch.randn(4, 4, 8, 8, generator=seeded),
        torch.tensor([300, 300, 700, 700]),
        torch.randn(4, 77, 32, generator=seeded),
        torch.randn(4, 16, generator=seeded),
    )


def predict(denoiser, x_t, t, text, cameras):
    return denoiser.predict_noise(x_t, t, text, cameras=cameras)


def test_views_of_an_object_see_each_other_and_no_other_object(denoiser, views):
    x_t, t, text, cameras = views
    before = predict(denoiser, *views)
    changed = x_t.clone()
    changed[1] += 1.0
    after = predict(denoiser, changed, t, text, cameras)
    assert (after[0] - before[0]).abs().max() > 1e-4
    torch.testing.assert_close(after[2:], before[2:], rtol=1e-5, atol=1e-6)


def test_the_order_of_the_views_does_not_matter(denoiser, views):
    order = [1, 0, 3, 2]
    expected = predict(denoiser, *views)[order]
    torch.testing.assert_close(
        predict(denoiser, *(one[order] for one in views)), expected, rtol=1e-4, atol=1e-5
    )


def test_slices_change_nothing(denoiser, views):
    sliced = load_denoiser(
        "maquette/random-tiny?family=multiview", torch.float32, CPU, memory=Memory.preset("slicing")
    )
    torch.testing.assert_close(predict(sliced, *views), predict(denoiser, *views), rtol=1e-4, atol=1e-5)


def test_objects_of_a_batch_are_as_alone(denoiser, views):
    together = predict(denoiser, *views)
    alone = torch.cat([predict(denoiser, *(one[rows] for one in views)) for rows in ([0, 1], [2, 3])])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_alike_views_are_those_of_the_plain_unet(denoiser, seeded):
    """Attention over copies of one picture is attention over the picture."""
    x_t = torch.randn(1, 4, 8, 8, generator=seeded).repeat(2, 1, 1, 1)
    t, text = torch.tensor([400, 400]), torch.randn(1, 77, 32, generator=seeded).repeat(2, 1, 1)
    cameras = torch.randn(1, 16, generator=seeded).repeat(2, 1)
    found = predict(denoiser, x_t, t, text, cameras)
    unet = load_pipeline("maquette/random-tiny?family=multiview").unet
    unet.set_attn_processor(AttnProcessor2_0())
    expected = unet(x_t, t, text, class_labels=cameras).sample
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_camera_matters(denoiser, views):
    *others, cameras = views
    assert (predict(denoiser, *others, cameras) - predict(denoiser, *others, None)).abs().max() > 1e-3


def test_part_of_an_object_is_refused(denoiser, views):
    with pytest.raises(UserError, match="2 views of an object"):
        predict(denoiser, *(one[:3] for one in views))


def test_a_unet_without_cameras_is_refused():
    one = load_pipeline("maquette/random-tiny")
    with pytest.raises(UserError, match="no cameras"):
        MultiViewDenoiser(one.unet, one.vae, one.scheduler)


def test_cameras_are_brought_to_the_unit_sphere():
    c2w = torch.eye(4).repeat(2, 1, 1)
    c2w[0, :3, 3], c2w[1, :3, 3] = torch.tensor([0.0, 3.0, 4.0]), torch.tensor([2.0, 0.0, 0.0])
    found = view_cameras(c2w).view(2, 4, 4)
    torch.testing.assert_close(found[0, :3, 3], torch.tensor([0.0, 0.6, 0.8]))
    torch.testing.assert_close(found[1, :3, 3], torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(found[:, :, :3], c2w[:, :, :3])
    assert torch.equal(found[:, 3], torch.tensor([[0.0, 0, 0, 1]] * 2))
