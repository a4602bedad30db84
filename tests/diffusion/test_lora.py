import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from maquette.core.errors import MissingFileError, ModelUnavailableError, UserError
from maquette.diffusion import lora
from maquette.diffusion.load import IMAGE_PARTS, load_pipeline


def fresh():
    return load_pipeline("maquette/random-tiny", parts=IMAGE_PARTS).unet


def answer(unet):
    generator = torch.Generator().manual_seed(0)
    x, text = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 5, 32, generator=generator)
    return unet(x, torch.tensor([400]), text, return_dict=False)[0]


def trained(unet, name="default", seed=1):
    """An adapter after a step of training that it needs to show at all."""
    parameters = lora.add_adapter(unet, name, generator=torch.Generator().manual_seed(seed))
    optimizer = torch.optim.SGD(parameters, lr=30.0)
    answer(unet).square().mean().backward()
    optimizer.step()
    return parameters


def test_a_fresh_adapter_changes_nothing_and_is_all_that_trains():
    unet = fresh()
    plain = answer(unet).detach()
    parameters = lora.add_adapter(unet)
    assert torch.equal(answer(unet), plain)
    assert {id(one) for one in unet.parameters() if one.requires_grad} == {id(one) for one in parameters}


def test_scale_zero_is_the_pretrained_model_bit_for_bit_and_one_is_the_adapted_one():
    unet = fresh()
    with torch.no_grad():
        plain = answer(unet)
    trained(unet)
    with torch.no_grad():
        adapted = answer(unet)
        lora.set_scales(unet, {"default": 0.0})
        assert torch.equal(answer(unet), plain)
        lora.set_scales(unet, {})
        assert torch.equal(answer(unet), plain)
        lora.set_scales(unet, {"default": 1.0})
        assert torch.equal(answer(unet), adapted)
        with lora.without_adapters(unet):
            assert torch.equal(answer(unet), plain)
        assert torch.equal(answer(unet), adapted)
    assert not torch.allclose(adapted, plain)


def test_a_file_brings_the_same_answer_to_another_unet(tmp_path):
    unet = fresh()
    trained(unet)
    path = lora.save_adapter(unet, tmp_path / "toy.safetensors")
    assert all(key.startswith("unet.") for key in load_file(path))
    again = fresh()
    lora.load_adapter(again, path)
    with torch.no_grad():
        torch.testing.assert_close(answer(again), answer(unet))
    assert lora.active_scales(again) == {"default": 1.0}


def test_several_adapters_each_with_its_scale(tmp_path):
    paths = []
    for seed in (1, 2):
        unet = fresh()
        trained(unet, seed=seed)
        paths.append(lora.save_adapter(unet, tmp_path / f"{seed}.safetensors"))
    both = fresh()
    lora.load_adapter(both, paths[0], "first", scale=0.5)
    lora.load_adapter(both, paths[1], "second", scale=2.0)
    assert lora.active_scales(both) == {"first": 0.5, "second": 2.0}
    with torch.no_grad():
        mixed = answer(both)
        lora.set_scales(both, {"first": 1.0})
        first = answer(both)
        alone = fresh()
        lora.load_adapter(alone, paths[0])
        torch.testing.assert_close(first, answer(alone))
    assert not torch.allclose(mixed, first)


def test_a_pipeline_of_diffusers_loads_the_file(tmp_path):
    unet = fresh()
    trained(unet)
    lora.save_adapter(unet, tmp_path / "pytorch_lora_weights.safetensors")
    pipeline = load_pipeline("maquette/random-tiny")
    pipeline.load_lora_weights(tmp_path, weight_name="pytorch_lora_weights.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(answer(pipeline.unet), answer(unet))


def test_the_file_of_an_adapter_is_small():
    unet = load_pipeline("maquette/toyworld", parts=("unet",)).unet
    whole = sum(one.numel() for one in unet.parameters())
    assert sum(one.numel() for one in lora.add_adapter(unet)) <= 0.02 * whole


def test_what_is_no_adapter_is_refused(tmp_path, capfd):
    unet = fresh()
    with pytest.raises(MissingFileError):
        lora.load_adapter(unet, tmp_path / "absent.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(UserError, match=r"torn\.safetensors"):
        lora.load_adapter(unet, tmp_path / "torn.safetensors")
    with pytest.raises(UserError, match="no adapter"):
        lora.save_adapter(unet, tmp_path / "x.safetensors")
    other = load_pipeline("maquette/random-tiny?encoders=2", parts=IMAGE_PARTS).unet
    trained(unet)
    path = lora.save_adapter(unet, tmp_path / "one.safetensors")
    with pytest.raises(UserError, match=r"(?s)does not fit.*size mismatch for \w+"):
        lora.load_adapter(other, path)
    assert capfd.readouterr().err == ""


def test_entries_of_a_recipe():
    parsed = lora.LoRAFile.parse(["a.safetensors", {"path": "b", "scale": 0.5}], "system.guidance.lora")
    assert [(one.path, one.scale) for one in parsed] == [("a.safetensors", 1.0), ("b", 0.5)]
    for wrong in ({"file": "a"}, {"path": "a", "scale": "big"}, {"path": "a", "scale": None}, 3):
        with pytest.raises(UserError, match=r"lora\[0\] is no adapter"):
            lora.LoRAFile.parse([wrong], "system.guidance.lora")


def test_adapters_of_different_layers_stay_in_use_together(tmp_path):
    both = fresh()
    for name, layer in {"first": "to_q", "second": "to_v", "third": "to_k"}.items():
        unet = fresh()
        lora.add_adapter(unet, targets=[layer])
        lora.load_adapter(both, lora.save_adapter(unet, tmp_path / f"{name}.safetensors"), name)
    assert lora.active_scales(both).keys() == {"first", "second", "third"}


def test_the_adapter_of_stable_diffusion_is_a_thousandth_of_it():
    """On the architecture of Stable Diffusion 1.5, which needs no memory without weights."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        whole = sum(one.numel() for one in unet.parameters())
        assert whole == 859_520_964
        assert sum(one.numel() for one in lora.add_adapter(unet)) == 797_184


@pytest.mark.parametrize(("alpha", "strength"), [(4.0, 1.0), (2.0, 0.5)])
def test_files_of_kohyas_scripts(tmp_path, alpha, strength):
    unet = fresh()
    trained(unet)
    renamed = {}
    for key, weight in load_file(lora.save_adapter(unet, tmp_path / "ours.safetensors")).items():
        layer, _, factor = key.removeprefix("unet.").rpartition(".lora_")
        name = "lora_unet_" + layer.replace(".", "_")
        renamed[f"{name}.{'lora_down' if factor.startswith('A') else 'lora_up'}.weight"] = weight
        renamed[f"{name}.alpha"] = torch.tensor(alpha)
    save_file(renamed, tmp_path / "kohya.safetensors")
    ours, theirs = fresh(), fresh()
    lora.load_adapter(ours, tmp_path / "ours.safetensors", scale=strength)
    lora.load_adapter(theirs, tmp_path / "kohya.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(answer(theirs), answer(ours))


def test_a_run_folder_is_read_by_the_file_of_its_adapter(tmp_path):
    unet = fresh()
    trained(unet)
    lora.save_adapter(unet, tmp_path / lora.ADAPTER_FILE)
    save_file({"<new1>": torch.zeros(32)}, tmp_path / "learned_embeds.safetensors")
    again = fresh()
    lora.load_adapter(again, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(answer(again), answer(unet))


def test_an_id_that_the_hub_does_not_give_ends_in_a_sentence():
    with pytest.raises(ModelUnavailableError, match="nobody/nothing"):
        lora.load_adapter(fresh(), "nobody/nothing")
