import pytest
import torch

from maquette.core.errors import ConfigError
from maquette.diffusion.random_parts import RandomPipelineSpec, byte_tokenizer
from maquette.diffusion.random_pipeline import build_random_pipeline


def test_options_are_read_from_the_name():
    spec = RandomPipelineSpec.parse(
        "maquette/random-tiny?prediction=v_prediction&vae=8&encoders=2&pooled=no&seed=4"
    )
    assert spec == RandomPipelineSpec(prediction="v_prediction", vae=8, encoders=2, pooled=False, seed=4)
    assert RandomPipelineSpec.parse("maquette/random-tiny") == RandomPipelineSpec()


@pytest.mark.parametrize("option", ["vae=3", "vae=big", "prediction=noise", "encoders=3", "colour=red"])
def test_a_wrong_option_is_named(option):
    with pytest.raises(ConfigError, match=option.partition("=")[0]):
        RandomPipelineSpec.parse(f"maquette/random-tiny?{option}")


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_state_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    one, two, other = (build_random_pipeline(RandomPipelineSpec(seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one.unet.conv_in.weight, two.unet.conv_in.weight)
    assert not torch.equal(one.unet.conv_in.weight, other.unet.conv_in.weight)


def test_a_part_is_the_same_alone():
    spec = RandomPipelineSpec(encoders=2)
    whole, part = build_random_pipeline(spec), build_random_pipeline(spec, parts=["text_encoder_2"])
    assert part.unet is None and part.tokenizer is None
    expected = whole.text_encoder_2.state_dict()
    assert all(torch.equal(expected[key], value) for key, value in part.text_encoder_2.state_dict().items())


def test_the_tokenizer_knows_every_text():
    tokenizer = byte_tokenizer()
    text = "ein Müllwagen, 赤い"
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text
