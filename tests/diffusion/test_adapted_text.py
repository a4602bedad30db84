"""What adapters bring for the text, in models with one text encoder and with two."""

import logging

import pytest
import torch
from safetensors.torch import load_file, save_file

from maquette.core.errors import UserError
from maquette.diffusion.adapted_text import adapt_text
from maquette.diffusion.load import IMAGE_PARTS, TEXT_PARTS, load_pipeline
from maquette.diffusion.lora import (
    TEXT_TARGETS,
    LoRAFile,
    active_scales,
    adapter_parameters,
    add_adapter,
    load_adapter,
    save_adapter,
)
from maquette.diffusion.new_words import WORDS_FILE, save_words

ONE, TWO = "maquette/random-tiny", "maquette/random-tiny?encoders=2"


def strong(model, seed, **options):
    """An adapter that changes much, at random."""
    generator = torch.Generator().manual_seed(seed)
    for weight in add_adapter(model, generator=generator, **options):
        weight.data = 0.5 * torch.randn(weight.shape, generator=generator)
    return {name: one.detach() for name, one in adapter_parameters(model).items()}


def answer(encoder):
    with torch.no_grad():
        return encoder(torch.arange(5)[None])[0]


def adapter_file(path, seed):
    """An adapter of UNet and text encoder, and what it adds to each weight of the latter."""
    unet, encoder = (
        load_pipeline(ONE, parts=IMAGE_PARTS).unet,
        load_pipeline(ONE, parts=TEXT_PARTS).text_encoder,
    )
    strong(unet, seed)
    factors = strong(encoder, seed, targets=TEXT_TARGETS)
    save_adapter(unet, path, text_encoder=encoder)
    firsts = {name: one for name, one in factors.items() if ".lora_A." in name}
    return {
        name.split(".lora_A.")[0]: factors[name.replace("lora_A", "lora_B")] @ one
        for name, one in firsts.items()
    }


def test_two_adapters_of_a_text_encoder_are_their_fused_sum(tmp_path, caplog, recwarn):
    paths = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    added = [adapter_file(path, seed) for seed, path in enumerate(paths)]
    pipeline, fused = (load_pipeline(ONE, parts=TEXT_PARTS) for _ in range(2))
    scales = (0.5, 2.0)
    with caplog.at_level(logging.WARNING):
        adapt_text(pipeline, [LoRAFile(path=str(p), scale=s) for p, s in zip(paths, scales, strict=True)])
    assert not caplog.records and not any("peft_config" in str(one.message) for one in recwarn)
    for scale, weights in zip(scales, added, strict=True):
        for name, weight in weights.items():
            fused.text_encoder.get_submodule(name).weight.data += scale * weight
    torch.testing.assert_close(
        answer(pipeline.text_encoder), answer(fused.text_encoder), atol=1e-4, rtol=1e-4
    )
    assert active_scales(pipeline.text_encoder) == {"lora0": 0.5, "lora1": 2.0}
    assert not any(one.requires_grad for one in pipeline.text_encoder.parameters())


def numbered(layer, layers):
    """The name of a block in SDXL's first code."""
    kind, *rest = layer.split(".")
    if kind == "mid_block":
        return ".".join(["middle_block", "1", *rest[2:]])
    block, _, place, *inner = rest
    first, names = (1, "input_blocks") if kind == "down_blocks" else (0, "output_blocks")
    return ".".join([names, str(first + int(block) * (layers + 1) + int(place)), "1", *inner])


def kohya(named):
    """Weights of adapters under the names of kohya's scripts."""
    renamed = {}
    for key, weight in named.items():
        layer, _, factor = key.rpartition(".lora_")
        name = layer.replace(".", "_")
        renamed[f"lora_{name}.{'lora_down' if factor.startswith('A') else 'lora_up'}.weight"] = weight
        renamed[f"lora_{name}.alpha"] = torch.tensor(4.0)
    return renamed


@pytest.fixture
def of_sdxl(tmp_path):
    """An adapter of UNet and both text encoders as kohya's scripts write it, and the adapted pipeline."""
    pipeline = load_pipeline(TWO)
    named = {}
    for number, part in enumerate(("te1", "te2")):
        encoder = (pipeline.text_encoder, pipeline.text_encoder_2)[number]
        for name, one in strong(encoder, number, targets=TEXT_TARGETS).items():
            named[f"{part}.text_model.{name.removeprefix('text_model.').replace('.default', '')}"] = one
    strong(pipeline.unet, 2)
    layers = pipeline.unet.config.layers_per_block
    for key, one in load_file(save_adapter(pipeline.unet, tmp_path / "unet.safetensors")).items():
        named[f"unet.{numbered(key.removeprefix('unet.'), layers)}"] = one
    path = tmp_path / "kohya.safetensors"
    save_file({key: one.contiguous() for key, one in kohya(named).items()}, path)
    return path, pipeline


def test_both_text_encoders_and_the_unet_of_an_adapter_from_kohyas_scripts(of_sdxl):
    path, adapted = of_sdxl
    pipeline = load_pipeline(TWO)
    adapt_text(pipeline, [LoRAFile(path=str(path))])
    torch.testing.assert_close(answer(pipeline.text_encoder), answer(adapted.text_encoder))
    torch.testing.assert_close(answer(pipeline.text_encoder_2), answer(adapted.text_encoder_2))
    load_adapter(pipeline.unet, path)
    found, expected = adapter_parameters(pipeline.unet), adapter_parameters(adapted.unet)
    assert found.keys() == expected.keys()
    assert all(torch.equal(one, expected[name]) for name, one in found.items())


def test_new_words_for_one_text_encoder_are_refused_by_a_model_with_two(of_sdxl):
    path, _ = of_sdxl
    save_words(path.parent / WORDS_FILE, {"<new1>": torch.zeros(32)})
    with pytest.raises(UserError, match="one text encoder"):
        adapt_text(load_pipeline(TWO), [LoRAFile(path=str(path))])
