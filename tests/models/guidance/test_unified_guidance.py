import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from maquette.core.errors import ConfigError, UserError
from maquette.core.random import RandomStreams
from maquette.core.registry import find
from maquette.diffusion import lora
from maquette.diffusion.denoiser import own_denoiser
from maquette.models.guidance.stable_diffusion import StableDiffusionGuidance
from maquette.models.guidance.stable_diffusion_vsd import StableDiffusionVSDGuidance
from maquette.models.guidance.unified import StableDiffusionUnifiedGuidance
from maquette.models.prompt_processors.stable_diffusion import StableDiffusionPromptProcessor

ideal = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("gaussian_model.py"))))
TINY = "maquette/random-tiny"
PHI = 0.3


class TextGaussian(ideal.GaussianModel):
    """The mean of the data is the number that the text is; latents decode to half of them."""

    def predict_noise(self, x_t, t, text, pooled=None):
        return self.noise_at(x_t, t, text[:, 0, 0].double())

    def decode(self, latents):
        return latents / 2


class Renderings(nn.Module):
    """A model of the renderings that adds the sum of the camera to their mean."""

    def __init__(self, guiding):
        super().__init__()
        self.pretrained_noise = guiding.predict_noise
        self.noise_at = guiding.noise_at

    def adapted_noise(self, x_t, t, text, pooled=None, camera=None):
        mean = torch.full((len(x_t),), PHI, dtype=torch.float64)
        return self.noise_at(x_t, t, mean if camera is None else mean + camera.sum(1))


def build(**options):
    return StableDiffusionUnifiedGuidance({"pretrained_model_name_or_path": TINY, **options})


def vsd(kind=StableDiffusionUnifiedGuidance, **options):
    """VSD whose two models are ideal."""
    guidance = kind({"pretrained_model_name_or_path": TINY, "guidance_scale": 7.5, **options})
    guidance.denoiser = TextGaussian()
    guidance.variational = Renderings(guidance.denoiser)
    guidance.adapter_loss = lambda latents, *rest: latents.sum() * 0.0
    return guidance


def matrices(seed, rows=3):
    return torch.randn(rows, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def prompt():
    return StableDiffusionPromptProcessor({"prompt": "a red car", "pretrained_model_name_or_path": TINY})()


def ask(guidance, utils, rgb, rows=range(3), **more):
    return guidance(rgb, utils, **ideal.cameras(rows), rng=RandomStreams(0).at(2, rows), **more)


def test_it_is_registered():
    assert find("stable-diffusion-unified-guidance", "guidance") is StableDiffusionUnifiedGuidance


def test_sds_is_that_of_the_plain_guidance(prompt):
    rgb = torch.rand(3, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    options = {"pretrained_model_name_or_path": TINY, "guidance_scale": 20.0, "use_img_loss": True}
    found, expected = (
        ask(kind(options), prompt, rgb) for kind in (StableDiffusionUnifiedGuidance, StableDiffusionGuidance)
    )
    assert torch.equal(found["loss_sd"], expected["loss_sds"])
    assert torch.equal(found["loss_sd_img"], expected["loss_sds_img"])
    assert "loss_train_phi" not in found
    assert not list(build().parameters())


def test_vsd_is_that_of_its_own_guidance(prompt):
    rgb = torch.rand(3, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    options = {"pretrained_model_name_or_path": TINY, "guidance_scale": 7.5, "use_img_loss": True}
    mine = build(**options, guidance_type="vsd", vsd_guidance_scale_phi=2.0, vsd_lora_n_timestamp_samples=2)
    other = StableDiffusionVSDGuidance(
        {**options, "guidance_scale_lora": 2.0, "lora_n_timestamp_samples": 2, "lora_cfg_training": False}
    )
    with torch.no_grad():
        for one, two in zip(mine.parameters(), other.parameters(), strict=True):
            one.add_(0.05)
            two.copy_(one)
    found, expected = (ask(guidance, prompt, rgb, c2w=matrices(2).float()) for guidance in (mine, other))
    for name, same in {"sd": "vsd", "sd_img": "vsd_img", "train_phi": "lora"}.items():
        assert torch.equal(found[f"loss_{name}"], expected[f"loss_{same}"])


@pytest.mark.parametrize("condition", ["extrinsics", "mvp", "spherical", None])
def test_vsd_in_latents_and_pixels_is_exactly_the_formula(condition):
    """w (eps_hat - eps_phi), and w sqrt(a / (1 - a)) (D(z_phi) - D(z_hat)) with the clean latents of both."""
    rgb, c2w, mvp = ideal.pictures().requires_grad_(), matrices(1), matrices(2)
    told = {"vsd_camera_condition_type": condition, "vsd_use_camera_condition": condition is not None}
    out = ask(vsd(guidance_type="vsd", **told), ideal.prompt(), rgb, c2w=c2w, mvp_mtx=mvp)
    (of_latents,) = torch.autograd.grad(out["loss_sd"], rgb, retain_graph=True)
    (of_pixels,) = torch.autograd.grad(out["loss_sd_img"], rgb)

    cameras = ideal.cameras()
    elevation, azimuth = cameras["elevation"].deg2rad(), cameras["azimuth"].deg2rad()
    around = [elevation, azimuth.sin(), azimuth.cos(), cameras["camera_distances"]]
    camera = {
        "extrinsics": c2w.sum((1, 2)),
        "mvp": mvp.sum((1, 2)),
        "spherical": sum(around),
        None: torch.zeros(3, dtype=torch.float64),
    }[condition]
    x, a = rgb.detach().permute(0, 3, 1, 2), TextGaussian.alphas_cumprod[out.timestep]
    noise = RandomStreams(0).at(2, range(3)).normal("guidance/noise", 3, 4, 4).double()
    x_t = ideal.score.add_noise(x, noise, a)
    texts = torch.tensor([ideal.SIDE, ideal.FRONT, ideal.BACK], dtype=torch.float64)
    eps_hat = ideal.noise_of(x_t, ideal.NEGATIVE + 7.5 * (texts - ideal.NEGATIVE), a)
    eps_phi = ideal.noise_of(x_t, PHI + camera, a)
    a = a[:, None, None, None]
    ideal.exactly(of_latents.permute(0, 3, 1, 2), (1 - a) * (eps_hat - eps_phi))
    apart = (x_t - (1 - a).sqrt() * eps_phi) / a.sqrt() - (x_t - (1 - a).sqrt() * eps_hat) / a.sqrt()
    ideal.exactly(of_pixels.permute(0, 3, 1, 2), (1 - a) * (a / (1 - a)).sqrt() * apart / 2)


def test_renderings_as_the_model_of_them_has_them_stay_where_the_prompt_wants_them():
    """Where both models agree there is nothing to do, in latents or in pixels."""
    utils = ideal.prompt()
    same = ideal.TextEncoding(torch.full((1, 1, 1), PHI, dtype=torch.float64))
    utils = type(utils)(**{**vars(utils), "text_vd": same[[0] * 4], "uncond": same})
    out = ask(vsd(guidance_type="vsd", vsd_use_camera_condition=False), utils, ideal.pictures())
    assert out["loss_sd"] < 1e-20 and out["loss_sd_img"] < 1e-20


def test_the_adapter_learns_and_its_weights_come_back(prompt, tmp_path):
    options = {
        "guidance_type": "vsd",
        "vsd_camera_condition_type": "spherical",
        "vsd_lora_cfg_training": True,
    }
    guidance = build(**options)
    rgb = torch.rand(2, 16, 16, 3).requires_grad_()
    out = ask(guidance, prompt, rgb, range(2))
    sum(value for name, value in out.items() if name.startswith("loss_")).backward()
    assert rgb.grad.isfinite().all()
    assert guidance.variational.camera_embedding.linear_1.in_features == 4
    assert any(one.grad is not None and one.grad.any() for one in guidance.parameters())
    with torch.no_grad():
        for one in guidance.parameters():
            one.add_(0.1)
    state = {f"guidance.{name}": one for name, one in guidance.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 0, "global_step": 7}, tmp_path / "last.ckpt")
    again = build(**options, weights=f"{tmp_path / 'last.ckpt'}:guidance")
    assert again.step == 7
    for one, two in zip(guidance.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)


def test_the_answer_holds_what_was_asked_for():
    rgb = ideal.pictures()
    options = {"return_rgb_1step_orig": True, "return_rgb_multistep_orig": True, "guidance_scale": 1.0}
    guidance = StableDiffusionUnifiedGuidance(options, TextGaussian())
    out = ask(guidance, ideal.prompt(), rgb, guidance_eval=True)
    assert torch.equal(out["latents"], rgb.permute(0, 3, 1, 2))
    assert torch.equal(out["timesteps"], out.timestep)
    a = TextGaussian.alphas_cumprod[out.timestep]
    torch.testing.assert_close(out["lambdas"], ((1 - a) / a).sqrt())
    torch.testing.assert_close(out["rgb_1step_orig"], out.eval.imgs_1orig)
    assert out["rgb_multistep_orig"].shape == (3, 4, 4, 3)
    plain = ask(StableDiffusionUnifiedGuidance({}, TextGaussian()), ideal.prompt(), rgb)
    assert "rgb_1step_orig" not in plain and "rgb_multistep_orig" not in plain


def test_an_adapter_of_the_recipe_is_used_in_both_types(prompt, tmp_path):
    denoiser = own_denoiser(TINY, torch.float32, torch.device("cpu"))
    with torch.no_grad():
        for weight in lora.add_adapter(denoiser.unet, generator=torch.Generator().manual_seed(0)):
            weight.add_(0.1)
    path = str(lora.save_adapter(denoiser.unet, tmp_path / "toy.safetensors"))
    rgb = torch.rand(1, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    for kind in ("sds", "vsd"):
        options = {"guidance_type": kind, "vsd_use_camera_condition": False, "use_img_loss": False}
        adapted, plain = (
            ask(build(**options, lora_model_name_or_path=one), prompt, rgb, range(1))["loss_sd"]
            for one in (path, None)
        )
        assert not torch.isclose(adapted, plain, rtol=1e-3)


def test_a_camera_condition_needs_its_matrices(prompt):
    with pytest.raises(UserError, match="c2w"):
        ask(build(guidance_type="vsd"), prompt, torch.rand(1, 16, 16, 3), range(1))


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"guidance_type": "csd"}, "guidance_type"),
        ({"weighting_strategy": "sjc"}, "weighting_strategy"),
        ({"controlnet_model_name_or_path": "x"}, "controlnet_model_name_or_path"),
        ({"preprocessor": "canny"}, "preprocessor"),
        ({"n_rgb_multistep_orig_steps": 0}, "n_rgb_multistep_orig_steps"),
        ({"guidance_type": "vsd", "vsd_use_lora": False}, "vsd_use_lora"),
        ({"guidance_type": "vsd", "vsd_camera_condition_type": "polar"}, "vsd_camera_condition_type"),
        ({"guidance_type": "vsd", "vsd_camera_condition_type": None}, "vsd_camera_condition_type"),
        ({"guidance_type": "vsd", "vsd_lora_n_timestamp_samples": 0}, "vsd_lora_n_timestamp_samples"),
        ({"guidance_type": "vsd", "memory": "offload"}, "memory"),
        ({"token_merging": True}, "token_merging"),
    ],
)
def test_what_cannot_work_is_refused(options, key):
    with pytest.raises(ConfigError, match=rf"system\.guidance\.{key}"):
        build(**options)
