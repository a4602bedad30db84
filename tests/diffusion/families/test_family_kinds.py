import pytest
import torch

from maquette.core.errors import ConfigError, UserError
from maquette.diffusion.denoiser import load_denoiser, own_denoiser, shared_denoiser
from maquette.diffusion.families.kinds import FAMILIES, family_of
from maquette.diffusion.load import family, load_pipeline

CPU = torch.device("cpu")

CLASSES = {
    "sd": "LatentDenoiser",
    "sdxl": "LatentDenoiser",
    "flow": "FlowDenoiser",
    "pixel": "PixelDenoiser",
    "zero123": "Zero123Denoiser",
    "multiview": "MultiViewDenoiser",
    "controlnet": "ControlNetDenoiser",
    "ip2p": "InstructPix2PixDenoiser",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A saved random pipeline of each family."""
    root = tmp_path_factory.mktemp("families")
    for name in FAMILIES:
        load_pipeline(f"maquette/random-tiny?family={name}").save_pretrained(root / name)
    return root


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_told_from_its_folder(folders, name):
    assert family(f"maquette/random-tiny?family={name}").name == name
    assert family(str(folders / name)).name == name


@pytest.mark.parametrize("name", FAMILIES)
def test_a_folder_and_memory_give_the_same_denoiser(folders, name):
    made = load_denoiser(f"maquette/random-tiny?family={name}", torch.float32, CPU)
    read = load_denoiser(str(folders / name), torch.float32, CPU)
    assert type(made).__name__ == type(read).__name__ == CLASSES[name]
    for one in (made, read):
        images = torch.rand(2, 3, one.image_size, one.image_size, generator=torch.Generator().manual_seed(1))
        latents = one.encode(images)
        assert latents.shape == (2, one.latent_channels, one.latent_size, one.latent_size)
        assert one.decode(latents).shape == images.shape
        assert one.num_train_timesteps == 1000 and (one.alphas_cumprod.diff() < 0).all()
        assert 0 < one.alphas_cumprod[-1] < one.alphas_cumprod[0] < 1
    network = "transformer" if name == "flow" else "unet"
    expected, found = (getattr(one, network).state_dict() for one in (made, read))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_models_that_need_only_a_text_can_be_shared():
    for name, kind in FAMILIES.items():
        model = f"maquette/random-tiny?family={name}"
        if kind.text_only:
            assert type(shared_denoiser(model, torch.float32, CPU)).__name__ == CLASSES[name]
        else:
            with pytest.raises(UserError, match="needs more than a text"):
                shared_denoiser(model, torch.float32, CPU)


def test_a_unet_that_denoises_latents_is_none_of_the_others():
    with pytest.raises(UserError, match="family flow"):
        own_denoiser("maquette/random-tiny?family=flow", torch.float32, CPU)


def test_mvdreams_own_layout_is_refused():
    with pytest.raises(UserError, match="code of its own repository"):
        family_of({"_class_name": "MVDreamPipeline", "unet": ["mv_unet", "MultiViewUNetModel"]})


def test_a_family_that_is_not_there():
    with pytest.raises(ConfigError, match="family"):
        load_pipeline("maquette/random-tiny?family=video")
