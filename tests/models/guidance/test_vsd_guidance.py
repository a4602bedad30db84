import pytest
import torch

from maquette.core.errors import ConfigError
from maquette.core.random import RandomStreams
from maquette.diffusion import score
from maquette.models.guidance.stable_diffusion_vsd import StableDiffusionVSDGuidance
from maquette.models.prompt_processors.stable_diffusion import StableDiffusionPromptProcessor

MODEL = "maquette/random-tiny?prediction=v_prediction"


@pytest.fixture
def prompt():
    return StableDiffusionPromptProcessor({"prompt": "a red car", "pretrained_model_name_or_path": MODEL})()


def build(**options):
    return StableDiffusionVSDGuidance({"pretrained_model_name_or_path": MODEL, **options})


def views(rows=(0, 1, 2)):
    rows = list(rows)
    generator = torch.Generator().manual_seed(2)
    c2w = torch.randn(3, 4, 4, generator=generator)[rows]
    angles = torch.tensor([0.0, 90.0, 180.0])[rows]
    cameras = {"elevation": angles * 0, "azimuth": angles, "camera_distances": angles * 0 + 2, "c2w": c2w}
    return cameras | {"mvp_mtx": -c2w, "rng": RandomStreams(0).at(3, rows)}


def latents(rows=(0, 1, 2)):
    return torch.randn(3, 8, 8, 4, generator=torch.Generator().manual_seed(1))[list(rows)]


def test_untrained_the_gradient_is_guidance_alone_and_the_adapter_still_learns(prompt):
    guidance, x = build(), latents().requires_grad_()
    out = guidance(x, prompt, **views(), rgb_as_latents=True)
    (out["loss_vsd"] + out["loss_lora"]).backward()
    assert x.grad.isfinite().all() and x.grad.abs().sum() > 0
    learned = {name for name, one in guidance.named_parameters() if one.grad is not None and one.grad.any()}
    assert any("lora_B" in name for name in learned)
    assert any("camera_embedding.linear_2" in name for name in learned)


def test_the_gradient_is_the_difference_of_the_two_models(prompt):
    guidance, x = build(guidance_scale=7.5, camera_condition_type="mvp"), latents()
    with torch.no_grad():
        for weight in guidance.parameters():
            weight.add_(0.05)
    leaf, batch = x.clone().requires_grad_(), views()
    out = guidance(leaf, prompt, **batch, rgb_as_latents=True)
    out["loss_vsd"].backward()
    t, z = out.timestep, x.permute(0, 3, 1, 2)
    alpha_bar = guidance.alphas_cumprod[t]
    x_t = score.add_noise(z, batch["rng"].normal("guidance/noise", 4, 8, 8), alpha_bar)
    viewed = prompt.encoding(batch["elevation"], batch["azimuth"]).hidden
    plain = prompt.encoding(batch["elevation"], batch["azimuth"], False).hidden[:3]
    variational = guidance.variational
    eps = [variational.pretrained_noise(x_t, t, half) for half in (viewed[3:], viewed[:3])]
    eps_phi = variational.adapted_noise(x_t, t, plain, camera=batch["mvp_mtx"].flatten(1))
    weight = (1 - alpha_bar)[:, None, None, None]
    expected = weight * (eps[0] + 7.5 * (eps[1] - eps[0]) - eps_phi) / 3
    torch.testing.assert_close(leaf.grad.permute(0, 3, 1, 2), expected, rtol=1e-4, atol=1e-5)


def test_the_camera_condition_is_computed_once_a_step(prompt, monkeypatch):
    guidance, asked = build(), []
    whole = guidance.camera_condition
    monkeypatch.setattr(guidance, "camera_condition", lambda views: asked.append(views) or whole(views))
    guidance(latents(), prompt, **views(), rgb_as_latents=True)
    assert len(asked) == 1


def test_a_batch_is_its_samples(prompt):
    guidance = build()
    together = latents().requires_grad_()
    guidance(together, prompt, **views(), rgb_as_latents=True)["loss_vsd"].backward()
    for i in range(3):
        alone = latents([i]).requires_grad_()
        guidance(alone, prompt, **views([i]), rgb_as_latents=True)["loss_vsd"].backward()
        torch.testing.assert_close(together.grad[i : i + 1] * 3, alone.grad, rtol=1e-3, atol=1e-5)


def test_the_adapter_may_sit_on_another_model(prompt):
    guidance = build(
        pretrained_model_name_or_path_lora="maquette/random-tiny?seed=4", lora_n_timestamp_samples=2
    )
    x = latents().requires_grad_()
    out = guidance(x, prompt, **views(), rgb_as_latents=True, guidance_eval=True)
    assert torch.isfinite(out["loss_vsd"] + out["loss_lora"])
    assert out.eval.imgs_final.shape == (3, 32, 32, 3)
    with pytest.raises(ConfigError, match="latents have 4 channels"):
        build(pretrained_model_name_or_path_lora="maquette/random-tiny?channels=8")


def test_pictures_train_it_too_and_the_loss_in_pixels_is_there_when_asked(prompt):
    guidance = build(use_img_loss=True, camera_condition_type="none")
    rgb = torch.rand(1, 16, 16, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    out = guidance(rgb, prompt, **views([0]))
    sum(value for key, value in out.items() if key.startswith("loss_")).backward()
    assert {"loss_vsd", "loss_lora", "loss_vsd_img"} <= set(out.keys())
    assert rgb.grad.isfinite().all()
