import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from maquette.core.errors import ConfigError, MissingBackendError, ModelUnavailableError, UserError
from maquette.diffusion import load
from maquette.diffusion.load import IMAGE_PARTS, TEXT_PARTS, load_part, load_pipeline, model_folder
from maquette.diffusion.schedulers import SCHEDULERS


@pytest.fixture
def folder(saved_folder, tmp_path):
    """A copy that may be damaged."""
    return shutil.copytree(saved_folder, tmp_path / "copy")


@pytest.fixture
def refusing_hub(monkeypatch):
    """A hub that answers everything with the error of this name."""
    import huggingface_hub

    def use(error):
        kind = getattr(huggingface_hub.errors, error)

        def refuse(*args, **kwargs):
            raise kind.__new__(kind)

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)

    return use


def unet_weights(folder):
    return folder / "unet" / "diffusion_pytorch_model.safetensors"


def test_a_folder_gives_back_what_was_saved(saved_folder):
    original = load_pipeline("maquette/random-tiny?seed=5")
    loaded = load_pipeline(str(saved_folder))
    assert type(loaded) is type(original)
    for part in ("unet", "vae", "text_encoder"):
        expected = getattr(original, part).state_dict()
        found = getattr(loaded, part).state_dict()
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)
        assert not any(p.requires_grad for p in getattr(loaded, part).parameters())
        assert not getattr(loaded, part).training


def test_only_the_asked_parts_are_loaded(folder):
    shutil.rmtree(folder / "vae")
    shutil.rmtree(folder / "unet")
    pipeline = load_pipeline(str(folder), parts=TEXT_PARTS)
    assert pipeline.unet is None and pipeline.vae is None
    assert pipeline.text_encoder is not None


def test_the_weights_have_the_asked_type(saved_folder):
    pipeline = load_pipeline(str(saved_folder), dtype=torch.bfloat16, parts=IMAGE_PARTS)
    assert pipeline.unet.dtype == pipeline.vae.dtype == torch.bfloat16


def test_two_text_encoders_survive_a_folder(tmp_path):
    name = "maquette/random-tiny?encoders=2"
    load_pipeline(name).save_pretrained(tmp_path / "xl")
    loaded = load_pipeline(str(tmp_path / "xl"))
    assert type(loaded).__name__ == "StableDiffusionXLPipeline"
    assert loaded.text_encoder_2 is not None
    assert loaded.config.force_zeros_for_empty_prompt is True


def test_a_half_precision_copy_is_used_when_there_is_no_other(folder):
    path = unet_weights(folder)
    path.rename(path.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert load_pipeline(str(folder), parts=["unet"]).unet is not None


def test_the_scheduler_can_be_swapped(saved_folder):
    plain = load_pipeline(str(saved_folder), parts=["scheduler"])
    for name, kind in {**SCHEDULERS, "PNDMScheduler": "PNDMScheduler", "dpm++": SCHEDULERS["DPM++"]}.items():
        swapped = load_pipeline(str(saved_folder), parts=["scheduler"], scheduler=name).scheduler
        assert type(swapped).__name__ == kind
        assert torch.equal(swapped.alphas_cumprod, plain.scheduler.alphas_cumprod)
    with pytest.raises(ConfigError, match="scheduler"):
        load_pipeline(str(saved_folder), parts=["scheduler"], scheduler="NoSuchScheduler")


@pytest.mark.parametrize(
    ("model", "scheduler"),
    [("flow", "DDIM"), ("sd", "FlowMatchEulerDiscreteScheduler"), ("sd", "AutoencoderKL")],
)
def test_a_scheduler_of_another_kind_is_refused(model, scheduler):
    with pytest.raises(ConfigError, match="scheduler"):
        load_pipeline(f"maquette/random-tiny?family={model}", parts=["scheduler"], scheduler=scheduler)


def test_one_part_is_loaded_by_its_name(saved_folder):
    whole = load_pipeline(str(saved_folder), dtype=torch.bfloat16, parts=["vae"]).vae
    for vae in (
        load_part(str(saved_folder), "vae", dtype=torch.bfloat16),
        load_part(str(saved_folder / "vae"), dtype=torch.bfloat16),
    ):
        assert vae.dtype == torch.bfloat16 and not vae.training
        assert torch.equal(vae.encoder.conv_in.weight, whole.encoder.conv_in.weight)
    with pytest.raises(UserError, match="no part controlnet"):
        load_part(str(saved_folder), "controlnet")


def test_a_variant_of_the_files_is_chosen_by_name(folder):
    path = unet_weights(folder)
    half = {name: tensor.half() * 0 for name, tensor in load_file(path).items()}
    save_file(half, path.with_name("diffusion_pytorch_model.fp16.safetensors"), {"format": "pt"})
    assert load_part(str(folder), "unet").conv_in.weight.any()
    assert not load_part(str(folder), "unet", variant="fp16").conv_in.weight.any()
    with pytest.raises(UserError, match="variant bf16"):
        load_part(str(folder), "unet", variant="bf16")


def test_a_folder_that_is_no_pipeline(tmp_path):
    with pytest.raises(UserError, match=r"model_index.json is missing"):
        load_pipeline(str(tmp_path))


def test_a_damaged_index(folder):
    (folder / "model_index.json").write_text("{")
    with pytest.raises(UserError, match=r"model_index.json is damaged"):
        load_pipeline(str(folder))


def test_a_missing_part_is_named(folder):
    shutil.rmtree(folder / "vae")
    with pytest.raises(UserError, match="its part vae is missing"):
        load_pipeline(str(folder))


def test_a_missing_config_is_named(folder):
    (folder / "unet" / "config.json").unlink()
    with pytest.raises(UserError, match=r"unet/config.json is missing"):
        load_pipeline(str(folder))


def test_missing_weights_are_named(folder):
    unet_weights(folder).rename(folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(UserError, match=r"unet holds no .safetensors file") as caught:
        load_pipeline(str(folder))
    assert "diffusion_pytorch_model.bin" in str(caught.value)


def test_a_truncated_file_is_named(folder):
    path = unet_weights(folder)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"unet/diffusion_pytorch_model.safetensors is damaged"):
        load_pipeline(str(folder))


def test_absent_weights_are_no_random_weights(folder):
    path = unet_weights(folder)
    tensors = load_file(path)
    del tensors["conv_in.weight"]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(UserError, match="unet") as caught:
        load_pipeline(str(folder), parts=IMAGE_PARTS)
    assert "conv_in.weight" in str(caught.value)


def test_absent_text_weights_are_no_random_weights(folder):
    path = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    gone = sorted(tensors)[0]
    del tensors[gone]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(UserError, match="text_encoder"):
        load_pipeline(str(folder), parts=TEXT_PARTS)


def test_code_of_the_folder_is_not_run(folder):
    index = json.loads((folder / "model_index.json").read_text())
    index["unet"] = ["my_module", "MyUNet"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"my_module.MyUNet"):
        load_pipeline(str(folder))


def test_a_model_without_a_unet_is_refused(folder):
    index = json.loads((folder / "model_index.json").read_text())
    index["transformer"] = index.pop("unet")
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="it has no unet"):
        load_pipeline(str(folder))


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "~/nothing/here", "", "a/b/c"])
def test_a_folder_that_is_not_there(name):
    with pytest.raises(ModelUnavailableError, match="there is no such folder"):
        model_folder(name)


def test_an_unknown_built_in_name():
    with pytest.raises(ModelUnavailableError, match="maquette/random-tiny"):
        model_folder("maquette/toyword")


def test_an_installation_without_its_prior(monkeypatch, tmp_path):
    monkeypatch.setattr(load, "assets_dir", tmp_path.joinpath)
    with pytest.raises(ModelUnavailableError, match="without its embedded prior"):
        load_pipeline("maquette/toyworld")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("GatedRepoError", "gated"),
        ("RepositoryNotFoundError", "the hub does not have it"),
        ("LocalEntryNotFoundError", "cannot be reached"),
        ("RemoteEntryNotFoundError", "no diffusers pipeline"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence_with_alternatives(refusing_hub, error, words):
    refusing_hub(error)
    with pytest.raises(ModelUnavailableError, match=words) as caught:
        load_pipeline("someone/something")
    assert "maquette/toyworld" in caught.value.hint
    assert "\n" not in caught.value.summary


@pytest.mark.parametrize("error", ["RepositoryNotFoundError", "LocalEntryNotFoundError"])
def test_a_model_that_was_removed_names_its_copies(refusing_hub, error):
    refusing_hub(error)
    with pytest.raises(ModelUnavailableError, match="its owner removed it") as caught:
        load_pipeline("runwayml/stable-diffusion-v1-5")
    assert "stable-diffusion-v1-5/stable-diffusion-v1-5 or maquette/toyworld" in caught.value.hint


def test_a_gated_model_says_whose_licence_and_how(refusing_hub):
    refusing_hub("GatedRepoError")
    with pytest.raises(ModelUnavailableError, match=r"DeepFloyd IF License.*hf auth login"):
        load_pipeline("DeepFloyd/IF-I-XL-v1.0")


def test_a_name_that_is_neither(monkeypatch):
    with pytest.raises(ModelUnavailableError, match="neither a folder nor an id"):
        load_pipeline("two words")


@pytest.mark.parametrize("verbosity", ["warning", "info"])
def test_libraries_are_quiet_while_loading_and_as_before_afterwards(monkeypatch, verbosity):
    from transformers.utils import logging as library

    seen = []

    def fail(name, wanted, dtype):
        seen.append((library.get_verbosity(), library.is_progress_bar_enabled()))
        raise UserError("not today")

    monkeypatch.setattr(load, "_random", fail)
    before = library.get_verbosity()
    library.set_verbosity(getattr(library, verbosity.upper()))
    expected = library.ERROR if verbosity == "warning" else library.INFO
    try:
        with pytest.raises(UserError, match="not today"):
            load_pipeline("maquette/random-tiny")
        assert seen == [(expected, False)]
        assert library.get_verbosity() == getattr(library, verbosity.upper())
        assert library.is_progress_bar_enabled()
    finally:
        library.set_verbosity(before)


def test_a_vocabulary_that_needs_another_package_names_its_extra(saved_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    folder = shutil.copytree(saved_folder, tmp_path / "if")
    (folder / "tokenizer" / "tokenizer.json").unlink()
    (folder / "tokenizer" / "spiece.model").write_bytes(b"")
    with pytest.raises(MissingBackendError, match=r"maquette\[deepfloyd\]"):
        load_pipeline(str(folder), parts=("tokenizer",))
