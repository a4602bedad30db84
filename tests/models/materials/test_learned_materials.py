"""Materials that read colours out of features: radiance, hybrids, latents."""

import pytest
import torch

from maquette.core.errors import ConfigError
from maquette.core.registry import find
from maquette.models.materials.hybrid_rgb_latent import HybridRGBLatentMaterial
from maquette.models.materials.neural_radiance import NeuralRadianceMaterial
from maquette.models.materials.sd_latent_adapter import (
    LATENT_TO_RGB,
    StableDiffusionLatentAdapterMaterial,
)
from maquette.models.networks.init import init_parameters


def test_are_registered():
    assert find("neural-radiance-material", "material") is NeuralRadianceMaterial
    assert find("hybrid-rgb-latent-material", "material") is HybridRGBLatentMaterial
    assert find("sd-latent-adapter-material", "material") is StableDiffusionLatentAdapterMaterial


def test_radiance_changes_with_the_direction():
    material, x = NeuralRadianceMaterial({}), torch.randn(5, 8)
    front, back = (torch.tensor([[sign, 0.0, 0.0]]).expand(5, 3) for sign in (1.0, -1.0))
    seen = material(x, front)
    assert seen.shape == (5, 3) and seen.min() > 0 and seen.max() < 1
    assert (seen - material(x, back)).abs().max() > 1e-4
    torch.testing.assert_close(material.export(x, viewdirs=back)["albedo"], material(x, back))
    assert material.export(x)["albedo"].shape == (5, 3)
    assert not material.requires_normal


def test_radiance_refuses_another_number_of_features():
    with pytest.raises(ConfigError, match="input_feature_dims"):
        NeuralRadianceMaterial({"input_feature_dims": 3})(torch.zeros(2, 8), torch.zeros(2, 3))
    with pytest.raises(ConfigError, match="input_feature_dims"):
        NeuralRadianceMaterial({"input_feature_dims": -1})


def test_hybrids_keep_latents_raw():
    material, x = HybridRGBLatentMaterial({"n_output_dims": 7}), 3 * torch.randn(5, 7)
    given = x.clone()
    seen = material(x)
    torch.testing.assert_close(seen[:, :3], torch.sigmoid(x[:, :3]))
    assert torch.equal(seen[:, 3:], x[:, 3:]) and torch.equal(x, given)
    torch.testing.assert_close(material.export(x)["albedo"], torch.sigmoid(x[:, :3]))
    assert material.requires_normal
    assert not HybridRGBLatentMaterial({"requires_normal": False}).requires_normal


def test_hybrids_refuse_what_does_not_fit():
    with pytest.raises(ConfigError, match="n_output_dims"):
        HybridRGBLatentMaterial({"n_output_dims": 2})
    with pytest.raises(ConfigError, match="n_feature_dims"):
        HybridRGBLatentMaterial({})(torch.zeros(2, 4))


def test_the_adapter_is_a_matrix_that_learns():
    material, x = StableDiffusionLatentAdapterMaterial({}), 0.3 * torch.randn(5, 4)
    init_parameters(material, seed=1)
    expected = ((x @ torch.tensor(LATENT_TO_RGB)) / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(material(x), expected)
    torch.testing.assert_close(material.export(x)["albedo"], expected)
    assert [name for name, _ in material.named_parameters()] == ["adapter"]
    material(x).sum().backward()
    torch.testing.assert_close(material.adapter.grad, (x.sum(dim=0) / 2)[:, None].expand(4, 3))
    with pytest.raises(ConfigError, match="n_feature_dims"):
        material(torch.zeros(2, 3))
