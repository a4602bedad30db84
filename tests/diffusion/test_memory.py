import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from torch import nn

from maquette.core.errors import ConfigError, UserError
from maquette.diffusion.attention import AttentionCapture
from maquette.diffusion.attention_processors import SlicedAttention
from maquette.diffusion.denoiser import load_denoiser
from maquette.diffusion.load import load_pipeline
from maquette.diffusion.memory import PRESETS, Memory, apply_memory
from maquette.diffusion.offload import offload

CPU = torch.device("cpu")
SWITCHES = {
    "slices of half the heads": Memory(attention_slice="auto"),
    "slices of one map": Memory(attention_slice="max"),
    "slices over samples": Memory(attention_slice=4),
    "memory-efficient": Memory(memory_efficient_attention=True),
    "VAE slices": Memory(vae_slicing=True),
    "VAE tiles": Memory(vae_tiling=True),
    "checkpointed": Memory(vae_checkpointing=True),
    "channels last": Memory(channels_last=True),
    "preset": PRESETS["slicing"],
}


def load(name="maquette/random-tiny"):
    return load_denoiser(name, torch.float32, CPU)


def answers(denoiser, seed=0):
    """Latents, their gradient, the predicted noise and the pictures of a batch of three."""
    generator = torch.Generator().manual_seed(seed)
    side, channels = denoiser.latent_size, denoiser.latent_channels
    images = torch.rand(3, 3, denoiser.image_size, denoiser.image_size, generator=generator)
    images.requires_grad_()
    latents = denoiser.encode(images)
    (gradient,) = torch.autograd.grad(latents.square().sum(), images)
    x_t = torch.randn(3, channels, side, side, generator=generator)
    text = torch.randn(3, 7, 32, generator=generator)
    noise = denoiser.predict_noise(x_t, torch.tensor([10, 500, 900]), text)
    return latents.detach(), gradient, noise, denoiser.decode(latents.detach())


def layout(denoiser):
    """Everything that a switch may change."""
    return {
        "processors": dict(denoiser.unet.attn_processors),
        "contiguous": denoiser.unet.conv_in.weight.is_contiguous(),
        "vae": {key: value for key, value in vars(denoiser.vae).items() if key.startswith(("use_", "tile_"))},
        "checkpointing": denoiser.vae.encoder.gradient_checkpointing,
        "forwards": [name for name, one in denoiser.vae.named_modules() if "forward" in vars(one)],
        "recompute": denoiser.recompute,
        "device": {one.device for one in denoiser.vae.parameters()},
    }


@pytest.mark.parametrize("memory", SWITCHES.values(), ids=SWITCHES.keys())
def test_a_switch_changes_no_answer_and_is_undone(memory):
    denoiser = load()
    before, expected = layout(denoiser), answers(denoiser)
    undo = apply_memory(denoiser, memory)
    for found, one in zip(answers(denoiser), expected, strict=True):
        torch.testing.assert_close(found, one, rtol=1e-4, atol=1e-5)
    if memory != SWITCHES["memory-efficient"]:
        assert layout(denoiser) != before
    undo()
    assert layout(denoiser) == before
    assert all(torch.equal(found, one) for found, one in zip(answers(denoiser), expected, strict=True))


def test_checkpointing_leaves_the_gradient_identical_and_keeps_less():
    denoiser = load("maquette/random-tiny?vae=8")
    kept = {}
    gradients = []
    for memory in (Memory(), Memory(vae_checkpointing=True)):
        undo, sizes = apply_memory(denoiser, memory), []
        images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda one, sizes=sizes: sizes.append(one.numel()) or one, lambda one: one
        ):
            latents = denoiser.encode(images)
        latents.square().sum().backward()
        gradients.append(images.grad)
        kept[memory] = sum(sizes)
        undo()
    assert torch.equal(*gradients)
    assert kept[Memory(vae_checkpointing=True)] < 0.5 * kept[Memory()]


def test_attention_that_is_written_out_becomes_fused():
    denoiser = load()
    denoiser.unet.set_attn_processor(AttnProcessor())
    undo = apply_memory(denoiser, Memory(memory_efficient_attention=True))
    assert {type(one) for one in denoiser.unet.attn_processors.values()} == {AttnProcessor2_0}
    undo()
    assert {type(one) for one in denoiser.unet.attn_processors.values()} == {AttnProcessor}


def test_no_more_maps_at_a_time_than_a_slice_has(monkeypatch):
    seen = []
    plain = nn.functional.scaled_dot_product_attention

    def spy(query, *args, **kwargs):
        seen.append(query.shape[0] * query.shape[1])
        return plain(query, *args, **kwargs)

    denoiser = load()
    x_t, t, text = torch.zeros(3, 4, 8, 8), torch.zeros(3, dtype=torch.long), torch.zeros(3, 7, 32)
    for size, largest in (("auto", 1), ("max", 1), (1, 1), (2, 2), (4, 4), (100, 6)):
        undo = apply_memory(denoiser, Memory(attention_slice=size))
        seen.clear()
        with monkeypatch.context() as patch:
            patch.setattr("maquette.diffusion.attention_processors.F.scaled_dot_product_attention", spy)
            denoiser.predict_noise(x_t, t, text)
        assert max(seen) == largest
        undo()


def test_slices_obey_a_mask():
    attn = load().unet.mid_block.attentions[0].transformer_blocks[0].attn1
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, attn.to_q.in_features, generator=generator)
    mask = torch.zeros(2, 1, 5)
    mask[1, :, 3:] = -10_000.0
    expected = AttnProcessor2_0()(attn, x, attention_mask=mask)
    for size in (1, 2, 4):
        torch.testing.assert_close(SlicedAttention(size)(attn, x, attention_mask=mask), expected)


def test_captured_maps_are_those_without_slices():
    denoiser = load()
    with AttentionCapture(denoiser.unet, kind=None) as whole:
        answers(denoiser)
    undo = apply_memory(denoiser, Memory(attention_slice="max"))
    with AttentionCapture(denoiser.unet, kind=None) as sliced:
        answers(denoiser)
        with pytest.raises(UserError, match="being watched"):
            apply_memory(denoiser, Memory(attention_slice="auto"))
    assert {type(one) for one in denoiser.unet.attn_processors.values()} == {SlicedAttention}
    for name, maps in whole.maps.items():
        torch.testing.assert_close(sliced.maps[name], maps)
    undo()


def test_a_refusal_leaves_nothing_changed():
    denoiser = load("maquette/random-tiny?family=controlnet")
    before = dict(denoiser.unet.attn_processors)
    with AttentionCapture(denoiser.controlnet), pytest.raises(UserError):
        apply_memory(denoiser, Memory(attention_slice="max"))
    assert all(denoiser.unet.attn_processors[name] is one for name, one in before.items())


def test_tiles_act_above_their_size_and_only_there():
    denoiser = load("maquette/random-tiny?vae=8&latent=16")
    images = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    whole = denoiser.encode(images)
    undo = apply_memory(denoiser, Memory(vae_tiling=True, vae_tile_size=128))
    assert torch.equal(denoiser.encode(images), whole)
    undo()
    undo = apply_memory(denoiser, Memory(vae_tiling=True, vae_tile_size=64))
    tiled = denoiser.encode(images)
    assert tiled.shape == whole.shape and not torch.equal(tiled, whole)
    undo()
    assert torch.equal(denoiser.encode(images), whole)


def test_layers_that_wait_elsewhere_compute_the_same():
    """Offloaded layer by layer to the CPU: their weights are nowhere (meta) while they do not compute."""
    denoiser = load()
    before, expected = layout(denoiser), answers(denoiser)
    networks = {"vae": denoiser.vae, "unet": denoiser.unet}
    denoiser.recompute = True
    undo = offload(networks, "sequential", CPU)
    assert {one.device.type for one in denoiser.unet.parameters()} == {"meta"}
    for found, one in zip(answers(denoiser), expected, strict=True):
        torch.testing.assert_close(found, one)
    undo()
    denoiser.recompute = False
    assert layout(denoiser) == before
    assert all(torch.equal(found, one) for found, one in zip(answers(denoiser), expected, strict=True))


class Traveller(nn.Module):
    """Writes down where it is sent."""

    def __init__(self, name, journal):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.name, self.journal = name, journal

    def to(self, device):
        self.journal.append((self.name, str(device)))
        self.weight = nn.Parameter(torch.zeros(1, device=device))
        return self

    def forward(self, x):
        return x


def test_one_network_at_a_time_is_on_the_device():
    journal = []
    networks = {name: Traveller(name, journal) for name in ("vae", "unet")}
    offload(networks, "model", torch.device("meta"))
    assert journal == [("vae", "cpu"), ("unet", "cpu")]
    journal.clear()
    for name in ("vae", "unet", "unet", "vae"):
        networks[name](torch.zeros(1))
    assert journal == [
        *[("unet", "cpu"), ("vae", "meta")],
        *[("vae", "cpu"), ("unet", "meta")],
        *[("unet", "cpu"), ("vae", "meta")],
    ]


@pytest.mark.parametrize("name", ["offload", "sequential"])
def test_offloading_without_a_gpu_says_so_before_anything_is_loaded(name):
    with pytest.raises(UserError, match="needs a GPU"):
        load_denoiser("maquette/random-tiny", torch.float32, CPU, memory=Memory.preset(name))


def test_a_pipeline_takes_the_options_too():
    pipeline = load_pipeline("maquette/random-tiny")
    undo = apply_memory(pipeline, PRESETS["slicing"])
    assert {type(one) for one in pipeline.unet.attn_processors.values()} == {SlicedAttention}
    assert pipeline.vae.use_slicing
    undo()
    assert not pipeline.vae.use_slicing


@pytest.mark.parametrize("family", ["sdxl", "flow", "pixel", "zero123", "multiview", "controlnet", "ip2p"])
def test_every_family_takes_the_preset(family):
    name = f"maquette/random-tiny?family={family}"
    denoiser = load_denoiser(name, torch.float32, CPU, memory=PRESETS["slicing"])
    images = torch.rand(2, 3, denoiser.image_size, denoiser.image_size)
    torch.testing.assert_close(denoiser.encode(images), load(name).encode(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"attention_slice": 0}, "attention_slice_size"),
        ({"attention_slice": "half"}, "attention_slice_size"),
        ({"vae_tile_size": 8}, "vae_tile_size"),
        ({"offload": "disk"}, "offload"),
    ],
)
def test_what_has_no_meaning_is_refused(options, key):
    with pytest.raises(ConfigError, match=key):
        Memory(**options)


def test_an_unknown_preset_is_refused():
    with pytest.raises(ConfigError, match="sequential"):
        Memory.preset("much")


def test_slices_that_a_transformer_does_not_take_are_told(caplog):
    denoiser = load("maquette/random-tiny?family=flow")
    apply_memory(denoiser, Memory(vae_slicing=True))
    assert not caplog.messages
    apply_memory(denoiser, PRESETS["slicing"])
    assert "not sliced" in caplog.text and denoiser.vae.use_slicing
