"""What trains, by which loss, and what is left of it."""

import pytest
import torch
from safetensors import safe_open

from maquette.core.errors import UserError
from maquette.diffusion.adapted_text import adapt_text
from maquette.diffusion.finetuning import FineTuner, Plan
from maquette.diffusion.load import load_pipeline
from maquette.diffusion.lora import LoRAFile, load_adapters
from maquette.diffusion.score import add_noise, velocity
from maquette.diffusion.text import encode_prompts

CPU = torch.device("cpu")
TINY = "maquette/random-tiny"


def tuner(name=TINY, **plan):
    return FineTuner.load(name, Plan(**plan), CPU)


def question(seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(2, 3, 32, 32, generator=generator)
    noise = torch.randn(2, 4, 8, 8, generator=generator)
    return images, ["a <new1> cup", "b"], noise, torch.tensor([100, 700])


def train(model, steps=2, lr=0.05):
    optimizer = torch.optim.Adam([one for one in model.parameters() if one.requires_grad], lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(*question()).mean().backward()
        optimizer.step()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_loss_is_in_what_the_model_predicts(prediction):
    model = tuner(f"{TINY}?prediction={prediction}")
    images, captions, noise, t = question()
    x0, alpha_bar = model.denoiser.encode(images), model.denoiser.alphas_cumprod[t]
    text = encode_prompts(TINY, captions).hidden
    out = model.pipeline.unet(add_noise(x0, noise, alpha_bar), t, text).sample
    target = {"epsilon": noise, "v_prediction": velocity(x0, noise, alpha_bar), "sample": x0}[prediction]
    expected = (out - target).square().mean((1, 2, 3))
    torch.testing.assert_close(model.loss(*question()), expected)


def test_a_loss_of_three_is_three_losses():
    model = tuner()
    images, captions, noise, t = question()
    together = model.loss(images, captions, noise, t)
    alone = [
        model.loss(images[i : i + 1], captions[i : i + 1], noise[i : i + 1], t[i : i + 1]) for i in (0, 1)
    ]
    torch.testing.assert_close(together, torch.cat(alone))


def test_only_the_adapter_and_the_words_train():
    model = tuner(words={"<new1>": "c"})
    pretrained = {
        name: one.clone() for name, one in model.pipeline.unet.named_parameters() if "lora" not in name
    }
    assert all("lora_" in name or name.startswith("words") for name, _ in model.named_parameters())
    before = model.loss(*question()).mean()
    train(model, steps=5)
    assert model.loss(*question()).mean() < before
    after = dict(model.pipeline.unet.named_parameters())
    assert all(torch.equal(after[name], one) for name, one in pretrained.items())
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


def test_dreambooth_trains_the_whole_unet_and_nothing_else_unless_asked():
    model = tuner(method="dreambooth")
    assert sum(one.numel() for one in model.parameters()) == sum(
        one.numel() for one in model.pipeline.unet.parameters()
    )
    both = tuner(method="dreambooth", text_encoder=True)
    assert sum(one.requires_grad for one in both.parameters()) == len(
        [*both.pipeline.unet.parameters(), *both.pipeline.text_encoder.parameters()]
    )


def test_an_adapter_with_words_and_text_does_the_same_elsewhere(tmp_path):
    model = tuner(words={"<new1>": "c"}, text_encoder=True)
    train(model)
    files = model.save(tmp_path, torch.float32)
    assert [path.name for path in files] == ["pytorch_lora_weights.safetensors", "learned_embeds.safetensors"]
    _, captions, noise, t = question()
    with torch.no_grad():
        read = model.read(captions)
    again = load_pipeline(TINY)
    adapter = [LoRAFile(path=str(tmp_path))]
    load_adapters(again.unet, adapter)
    adapt_text(again, adapter)
    with torch.no_grad():
        found = FineTuner.read(_bare(again), captions)
        torch.testing.assert_close(found, read)
        torch.testing.assert_close(
            again.unet(noise, t, found).sample,
            model.pipeline.unet(noise, t, read).sample,
        )
    torch.testing.assert_close(encode_prompts(TINY, captions, adapters=adapter).hidden, read)


def _bare(pipeline):
    """What `FineTuner.read` looks at."""
    bare = FineTuner.__new__(FineTuner)
    torch.nn.Module.__init__(bare)
    bare.__dict__.update(pipeline=pipeline, denoiser=pipeline.unet)
    return bare


def test_diffusers_loads_unet_text_encoder_and_word_by_its_own_methods(tmp_path):
    model = tuner(words={"<new1>": "c"}, text_encoder=True)
    train(model)
    model.save(tmp_path, torch.float32)
    pipeline = load_pipeline(TINY)
    pipeline.load_textual_inversion(str(tmp_path))
    pipeline.load_lora_weights(tmp_path, weight_name="pytorch_lora_weights.safetensors")
    captions = question()[1]
    with torch.no_grad():
        torch.testing.assert_close(FineTuner.read(_bare(pipeline), captions), model.read(captions))


def test_dreambooth_leaves_a_pipeline_with_the_word(tmp_path):
    model = tuner(method="dreambooth", words={"<new1>": "c"})
    train(model)
    model.save(tmp_path, torch.float32)
    again = load_pipeline(str(tmp_path / "pipeline"))
    _, captions, noise, t = question()
    with torch.no_grad():
        read = model.read(captions)
        torch.testing.assert_close(FineTuner.read(_bare(again), captions), read)
        torch.testing.assert_close(
            again.unet(noise, t, read).sample, model.pipeline.unet(noise, t, read).sample
        )
    assert again.tokenizer("<new1>", add_special_tokens=False).input_ids == [259]


def test_files_are_in_half_precision_where_that_is_asked_for(tmp_path):
    path = tuner().save(tmp_path, torch.float16)[0]
    with safe_open(path, framework="pt") as handle:
        assert {handle.get_slice(key).get_dtype() for key in handle.keys()} == {"F16"}


def test_scale_zero_is_the_pretrained_model_bit_for_bit(tmp_path):
    model = tuner()
    train(model)
    model.save(tmp_path, torch.float16)
    plain, adapted = load_pipeline(TINY).unet, load_pipeline(TINY).unet
    load_adapters(adapted, [LoRAFile(path=str(tmp_path), scale=0.0)])
    x, text, t = torch.randn(1, 4, 8, 8), torch.randn(1, 5, 32), torch.tensor([400])
    with torch.no_grad():
        assert torch.equal(adapted(x, t, text).sample, plain(x, t, text).sample)


def test_fused_adapters_leave_one_plain_model(tmp_path):
    model = tuner()
    train(model)
    model.save(tmp_path, torch.float32)
    plain, fused = load_pipeline(TINY).unet, load_pipeline(TINY).unet
    load_adapters(plain, [LoRAFile(path=str(tmp_path), scale=0.5)])
    load_adapters(fused, [LoRAFile(path=str(tmp_path), scale=0.5)], fuse=True)
    assert not any("lora" in name for name, _ in fused.named_parameters())
    x, text, t = torch.randn(1, 4, 8, 8), torch.randn(1, 5, 32), torch.tensor([400])
    with torch.no_grad():
        torch.testing.assert_close(fused(x, t, text).sample, plain(x, t, text).sample)


def test_the_same_seed_draws_the_same_adapter():
    first, second, other = (FineTuner.load(TINY, Plan(), CPU, seed) for seed in (1, 1, 2))
    for (name, one), two in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(one, two), name
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_other_families_and_layers_are_refused():
    with pytest.raises(UserError, match="family sdxl"):
        tuner(f"{TINY}?encoders=2")
    with pytest.raises(UserError, match="to_nothing"):
        tuner(targets=("to_nothing",))
