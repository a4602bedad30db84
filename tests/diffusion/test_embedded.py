"""The parts of the embedded prior: sizes, words, what travels through them, and the folder they make."""

import pytest
import torch

from maquette.core.errors import MissingFileError
from maquette.diffusion.embedded import (
    MAX_TOKENS,
    assemble,
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    build_unet,
    build_vae,
    load_vae,
    save_half,
    tokenize,
)
from maquette.diffusion.load import load_pipeline
from maquette.diffusion.prior_losses import (
    autoencoder_terms,
    chroma,
    edge_difference,
    encode_means,
    prepare_autoencoder,
    timesteps_at,
    velocity_loss,
)
from maquette.diffusion.sampling import sample_images

WORDS = ("red", "car", "front", "left", "high")
BUDGET_BYTES = 12_000_000


@pytest.fixture(scope="module")
def pipeline():
    torch.manual_seed(0)
    tokenizer = build_tokenizer(WORDS)
    return assemble(build_vae(), build_unet(), build_text_encoder(tokenizer), tokenizer)


def test_every_word_has_its_own_token(pipeline):
    ids = tokenize(pipeline.tokenizer, ["a red car, front left view, high", "", "a <new1> CAR, purpleish"])
    assert ids.shape == (3, MAX_TOKENS)
    unknown = pipeline.tokenizer.unk_token_id
    assert (ids == unknown).sum(1).tolist() == [0, 0, 1]
    assert ids[1].tolist() == [pipeline.tokenizer.bos_token_id, pipeline.tokenizer.eos_token_id] + [
        pipeline.tokenizer.pad_token_id
    ] * (MAX_TOKENS - 2)
    assert pipeline.tokenizer.decode(ids[2, 2:4]) == "<new1> car"


def test_weights_fit_the_budget(pipeline):
    parts = (pipeline.vae, pipeline.unet, pipeline.text_encoder)
    assert 2 * sum(weight.numel() for part in parts for weight in part.parameters()) < BUDGET_BYTES


def test_text_reaches_the_denoiser_and_word_order_matters(pipeline):
    texts = ["a red car, front left view, high", "a red car, left front view, high"]
    text = pipeline.text_encoder(tokenize(pipeline.tokenizer, texts))[0]
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)).expand(2, -1, -1, -1)
    with torch.no_grad():
        out = pipeline.unet(latents, torch.tensor([500, 500]), text).sample
    assert out.shape == latents.shape
    assert (out[0] - out[1]).abs().max() > 1e-5


def test_heads_are_32_wide(pipeline):
    attention = pipeline.unet.mid_block.attentions[0].transformer_blocks[0].attn1
    assert attention.inner_dim // attention.heads == 32


def test_saved_folder_is_read_back_and_samples(pipeline, tmp_path):
    before = pipeline.unet.conv_in.weight.clone()
    save_half(pipeline, tmp_path / "prior")
    assert torch.equal(pipeline.unet.conv_in.weight, before)
    size = sum(file.stat().st_size for file in (tmp_path / "prior").rglob("*") if file.is_file())
    assert size < BUDGET_BYTES
    again = load_pipeline(str(tmp_path / "prior"))
    assert torch.equal(again.unet.conv_in.weight, before.half().float())
    assert again.scheduler.config["prediction_type"] == "v_prediction"
    pictures = sample_images(again, ["a red car", "a car"], steps=2)
    assert pictures.shape == (2, 3, 64, 64)
    alone = sample_images(again, ["a red car"], steps=2)
    torch.testing.assert_close(pictures[:1], alone, atol=1e-4, rtol=0)


def test_missing_autoencoder_is_named(tmp_path):
    with pytest.raises(MissingFileError, match="autoencoder"):
        load_vae(tmp_path / "nowhere")


def test_prepared_autoencoder_starts_narrow_and_linear_in_its_branches():
    vae = build_vae((8, 8, 8))
    prepare_autoencoder(vae)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    posterior = vae.encode(images).latent_dist
    torch.testing.assert_close(posterior.logvar, torch.full_like(posterior.logvar, -6.0))


def test_autoencoder_terms_of_a_perfect_copy_are_zero():
    vae = build_vae((8, 8, 8))
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    terms = autoencoder_terms(vae, images, torch.zeros(1, 4, 8, 8))
    assert set(terms) == {"l2", "chroma", "l1", "edge", "kl"}
    assert all(term.ndim == 0 and term > 0 for term in terms.values())
    assert edge_difference(images, images + 0.3).item() == pytest.approx(0.0, abs=1e-6)
    torch.testing.assert_close(chroma(images[:, :1].expand(-1, 3, -1, -1)), torch.zeros_like(images))


def test_encode_means_does_not_depend_on_the_batch():
    vae = build_vae((8, 8, 8))
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(
        encode_means(vae, images, 2), encode_means(vae, images, 3), atol=1e-5, rtol=1e-4
    )


def test_a_small_exponent_prefers_much_noise():
    place = (torch.arange(1000) + 0.5) / 1000
    steps = timesteps_at(place, 1000, exponent=0.5)
    assert (steps >= 500).float().mean().item() == pytest.approx(0.75, abs=0.01)
    assert torch.equal(timesteps_at(place, 1000, exponent=1.0), torch.arange(1000))


def test_velocity_loss_is_zero_for_the_true_velocity():
    """v = alpha * noise - sigma * latents (Salimans and Ho 2022)."""
    scheduler = build_scheduler()
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 3, 4, 8, 8, generator=generator)
    timesteps = torch.tensor([0, 400, 999])
    alpha = scheduler.alphas_cumprod[timesteps].sqrt().view(-1, 1, 1, 1)
    velocity = alpha * noise - (1 - alpha**2).sqrt() * latents

    class Oracle:
        def __call__(self, noisy, steps, text):
            assert torch.equal(steps, timesteps)
            return type("Out", (), {"sample": velocity})

    loss = velocity_loss(Oracle(), scheduler, latents, torch.zeros(3, 16, 8), noise, timesteps)
    assert loss.item() == pytest.approx(0.0, abs=1e-10)
