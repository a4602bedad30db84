import pytest
import torch

from maquette.core.errors import ConfigError, UserError
from maquette.diffusion.attention_processors import SlicedAttention
from maquette.diffusion.load import load_pipeline
from maquette.diffusion.lora import add_adapter, save_adapter
from maquette.diffusion.memory import PRESETS, Memory
from maquette.models.guidance.memory_options import memory_settings
from maquette.models.guidance.stable_diffusion import StableDiffusionGuidance
from maquette.models.guidance.stable_diffusion_vsd import StableDiffusionVSDGuidance

TINY = {"pretrained_model_name_or_path": "maquette/random-tiny"}


def settings(**options):
    return memory_settings(StableDiffusionGuidance.Config(**options))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_by_its_name(name):
    assert settings(memory=name) == PRESETS[name]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"enable_attention_slicing": True}, Memory(attention_slice="auto")),
        ({"enable_attention_slicing": True, "attention_slice_size": 3}, Memory(attention_slice=3)),
        ({"attention_slice_size": "max"}, Memory()),
        ({"enable_memory_efficient_attention": True}, Memory(memory_efficient_attention=True)),
        ({"enable_channels_last_format": True}, Memory(channels_last=True)),
        ({"enable_model_cpu_offload": True}, Memory(offload="model")),
        ({"enable_sequential_cpu_offload": True}, Memory(offload="sequential")),
        ({"enable_model_cpu_offload": True, "memory": "sequential"}, PRESETS["sequential"]),
        ({"enable_vae_slicing": True}, Memory(vae_slicing=True)),
        ({"enable_vae_tiling": True, "vae_tile_size": 256}, Memory(vae_tiling=True, vae_tile_size=256)),
        ({"enable_vae_gradient_checkpointing": True}, Memory(vae_checkpointing=True)),
    ],
)
def test_single_switches_under_the_names_of_the_ecosystem(options, expected):
    assert settings(**options) == expected


def test_a_switch_adds_to_a_preset():
    found = settings(memory="slicing", attention_slice_size="max", enable_channels_last_format=True)
    assert (found.attention_slice, found.channels_last, found.vae_slicing) == ("max", True, True)


def test_the_guidance_computes_as_it_was_told_also_with_adapters(tmp_path):
    unet = load_pipeline("maquette/random-tiny", parts=("unet",)).unet
    add_adapter(unet, generator=torch.Generator().manual_seed(0))
    path = save_adapter(unet, tmp_path / "adapter.safetensors")
    for lora in ([], [str(path)]):
        guidance = StableDiffusionGuidance({**TINY, "memory": "slicing", "lora": lora})
        processors = guidance.denoiser.unet.attn_processors.values()
        assert {type(one) for one in processors} == {SlicedAttention}
        assert guidance.denoiser.vae.encoder.gradient_checkpointing


def test_offloading_is_refused_without_a_gpu():
    with pytest.raises(UserError, match="needs a GPU"):
        StableDiffusionGuidance({**TINY, "enable_sequential_cpu_offload": True})


def test_a_model_in_training_is_not_offloaded():
    with pytest.raises(ConfigError, match=r"system\.guidance\.memory"):
        StableDiffusionVSDGuidance({**TINY, "memory": "offload"})
