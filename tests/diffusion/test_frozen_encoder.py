from contextlib import contextmanager

import pytest
import torch

from maquette.diffusion.frozen_encoder import keep_less
from maquette.diffusion.load import load_pipeline


@pytest.fixture
def vae():
    return load_pipeline("maquette/random-tiny?vae=8", parts=("vae",)).vae


def pictures():
    return torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0)).requires_grad_()


@contextmanager
def counted():
    """The sizes of what autograd keeps."""
    sizes = []

    def pack(one):
        sizes.append(one.numel())
        return one

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda one: one):
        yield sizes


def latents_and_gradient(vae):
    images = pictures()
    with counted() as sizes:
        latents = vae.encode(images).latent_dist.mean
    (gradient,) = torch.autograd.grad(latents.square().sum(), images)
    return latents.detach(), gradient, sum(sizes)


def test_values_and_gradients_are_those_of_autograd_bit_for_bit(vae):
    latents, gradient, kept = latents_and_gradient(vae)
    keep_less(vae.encoder, setattr)
    again, same, less = latents_and_gradient(vae)
    assert torch.equal(again, latents) and torch.equal(same, gradient)
    assert less < 0.5 * kept


def test_weights_that_are_trained_get_their_gradient(vae):
    vae.requires_grad_(True)

    def gradients():
        vae.zero_grad()
        vae.encode(pictures()).latent_dist.mean.square().sum().backward()
        return [one.grad.clone() for one in vae.encoder.parameters()]

    expected = gradients()
    keep_less(vae.encoder, setattr)
    for found, one in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(found, one)


def test_half_precision_around_it_changes_nothing_about_the_type(vae):
    keep_less(vae.encoder, setattr)
    images = pictures()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        vae.encode(images).latent_dist.mean.float().square().sum().backward()
    assert images.grad.dtype == torch.float32 and images.grad.isfinite().all()


def test_without_a_graph_nothing_is_kept(vae):
    keep_less(vae.encoder, setattr)
    with torch.no_grad(), counted() as sizes:
        latents = vae.encode(pictures()).latent_dist.mean
    assert not sizes and not latents.requires_grad
