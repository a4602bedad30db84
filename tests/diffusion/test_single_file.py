import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from maquette.core.errors import ConfigError, MissingFileError, UserError
from maquette.diffusion.denoiser import load_denoiser
from maquette.diffusion.load import load_part, load_pipeline
from maquette.diffusion.single_file import is_single_file
from maquette.diffusion.text import encode_prompts

CPU = torch.device("cpu")

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
"""Layers of a residual block of the UNet, and what the original program calls them."""

UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "down_blocks.0.resnets.0": "input_blocks.1.0",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "down_blocks.1.resnets.0": "input_blocks.3.0",
    "down_blocks.1.attentions.0": "input_blocks.3.1",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "up_blocks.0.resnets.0": "output_blocks.0.0",
    "up_blocks.0.attentions.0": "output_blocks.0.1",
    "up_blocks.0.resnets.1": "output_blocks.1.0",
    "up_blocks.0.attentions.1": "output_blocks.1.1",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv",
    "up_blocks.1.resnets.0": "output_blocks.2.0",
    "up_blocks.1.resnets.1": "output_blocks.3.0",
}
"""Where the blocks of the small UNet stand in the original layout."""

VAE = {
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0.group_norm": "mid.attn_1.norm",
    "mid_block.attentions.0.to_q": "mid.attn_1.q",
    "mid_block.attentions.0.to_k": "mid.attn_1.k",
    "mid_block.attentions.0.to_v": "mid.attn_1.v",
    "mid_block.attentions.0.to_out.0": "mid.attn_1.proj_out",
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
}


def original_unet(name):
    for ours, theirs in UNET.items():
        if name.startswith(f"{ours}."):
            inner = name.removeprefix(f"{ours}.")
            layer = inner.split(".")[0]
            inner = inner.replace(layer, RESNET.get(layer, layer), 1) if ".resnets." in name else inner
            return f"model.diffusion_model.{theirs}.{inner}"
    raise KeyError(name)


def original_vae(name, levels):
    for ours, theirs in VAE.items():
        name = name.replace(ours, theirs)
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = name.replace(".upsamplers.0.", ".upsample.")
    name = re.sub(r"up_blocks\.(\d)\.resnets", r"up_blocks.\1.block", name)
    name = re.sub(r"up_blocks\.(\d)", lambda found: f"up.{levels - 1 - int(found[1])}", name)
    return f"first_stage_model.{name}"


@pytest.fixture(scope="module")
def checkpoint(saved_folder, tmp_path_factory):
    """The small pipeline of `saved_folder` as one file in the layout of the original program."""
    one = load_pipeline(str(saved_folder))
    tensors = {original_unet(key): value for key, value in one.unet.state_dict().items()}
    levels = len(one.vae.config.block_out_channels)
    for key, value in one.vae.state_dict().items():
        name = original_vae(key, levels)
        square = ".attn_1." in name and ".norm." not in name and value.ndim == 2
        tensors[name] = value[:, :, None, None] if square else value
    for key, value in one.text_encoder.state_dict().items():
        inner = key if key.startswith("text_model.") else f"text_model.{key}"
        tensors[f"cond_stage_model.transformer.{inner}"] = value
    path = tmp_path_factory.mktemp("files") / "tiny.safetensors"
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    return path


def test_a_checkpoint_is_the_pipeline_it_was_made_of(checkpoint, saved_folder):
    whole = load_pipeline(str(saved_folder))
    found = load_pipeline(f"{checkpoint}?config={saved_folder}")
    assert type(found) is type(whole)
    for part in ("unet", "vae", "text_encoder"):
        expected, read = (getattr(one, part).state_dict() for one in (whole, found))
        assert expected.keys() == read.keys()
        assert all(torch.equal(expected[key], read[key]) for key in expected)
        assert not any(p.requires_grad for p in getattr(found, part).parameters())


def test_a_checkpoint_denoises_and_reads_text(checkpoint, saved_folder):
    name = f"{checkpoint}?config={saved_folder}"
    text = encode_prompts(name, ["a red car"])
    torch.testing.assert_close(text.hidden, encode_prompts(str(saved_folder), ["a red car"]).hidden)
    x_t, t = torch.ones(1, 4, 8, 8), torch.tensor([400])
    found, expected = (
        load_denoiser(one, torch.float32, CPU).predict_noise(x_t, t, text.hidden)
        for one in (name, str(saved_folder))
    )
    torch.testing.assert_close(found, expected)


def test_one_part_of_a_checkpoint(checkpoint, saved_folder):
    vae = load_part(f"{checkpoint}?config={saved_folder}", "vae", dtype=torch.bfloat16)
    assert vae.dtype == torch.bfloat16
    expected = load_pipeline(str(saved_folder)).vae.encoder.conv_in.weight.bfloat16()
    assert torch.equal(vae.encoder.conv_in.weight, expected)


def test_without_a_configuration_and_without_the_hub_it_says_what_to_give(checkpoint):
    with pytest.raises(UserError, match="needs the configuration of") as caught:
        load_pipeline(str(checkpoint))
    assert "?config=FOLDER" in str(caught.value)


def test_a_file_without_the_networks_is_no_model(tmp_path, saved_folder):
    path = tmp_path / "lora.safetensors"
    save_file({"some.weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="could not be read as a whole model"):
        load_pipeline(f"{path}?config={saved_folder}")


@pytest.mark.parametrize("lost", ["model.diffusion_model.out.2.", "cond_stage_model.*final_layer_norm"])
def test_weights_that_are_not_there_are_no_random_weights(checkpoint, saved_folder, tmp_path, lost):
    tensors = {key: value for key, value in load_file(checkpoint).items() if not re.match(lost, key)}
    save_file(tensors, tmp_path / "some.safetensors")
    with pytest.raises(UserError, match=r"some.safetensors lacks"):
        load_pipeline(f"{tmp_path / 'some.safetensors'}?config={saved_folder}")


def test_a_truncated_file_is_damaged(checkpoint, saved_folder, tmp_path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(checkpoint.read_bytes()[:-50])
    with pytest.raises(UserError, match="damaged"):
        load_pipeline(f"{path}?config={saved_folder}")


def test_a_pickled_checkpoint_is_not_read(tmp_path):
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"\x80\x04")
    with pytest.raises(UserError, match="may run code"):
        load_pipeline(str(path))


def test_names_of_checkpoints(tmp_path, checkpoint):
    assert is_single_file("a/b.safetensors?config=c") and is_single_file("model.ckpt")
    assert not is_single_file("stabilityai/stable-diffusion-2-1") and not is_single_file("maquette/toyworld")
    with pytest.raises(MissingFileError):
        load_pipeline(str(tmp_path / "none.safetensors"))
    with pytest.raises(ConfigError, match="colour"):
        load_pipeline(f"{checkpoint}?colour=red")
