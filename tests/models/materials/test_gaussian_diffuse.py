import torch

from maquette.models.materials.gaussian_diffuse import GaussianDiffuseWithPointLightMaterial


def test_pixels_are_the_albedo_and_the_field_gives_logits() -> None:
    material = GaussianDiffuseWithPointLightMaterial({"ambient_only_steps": 0})
    features = torch.rand(5, 3)
    torch.testing.assert_close(material.export(torch.logit(features))["albedo"], features)
    up = torch.tensor([[0.0, 0.0, 1.0]]).expand(5, 3)
    lit = material.eval()(features, positions=torch.zeros(5, 3), shading_normal=up, light_positions=up * 3.0)
    torch.testing.assert_close(lit, features)
    below = material(features, positions=torch.zeros(5, 3), shading_normal=-up, light_positions=up)
    torch.testing.assert_close(below, features * 0.1)
