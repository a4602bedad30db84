import pytest
import torch

from maquette.core.errors import ConfigError
from maquette.core.random import RandomStreams
from maquette.models.materials.diffuse_with_point_light import DiffuseWithPointLightMaterial
from maquette.models.materials.no_material import NoMaterial

STREAMS = RandomStreams(3)


def surface(n=6):
    generator = torch.Generator().manual_seed(0)
    normal = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)
    features = torch.randn(n, 3, generator=generator)
    return {
        "features": features,
        "viewdirs": -normal,
        "positions": normal,
        "shading_normal": normal,
        "light_positions": normal * 3.0,
    }


def test_no_material_shows_activated_features():
    material, points = NoMaterial({}), surface()
    torch.testing.assert_close(material(**points), torch.sigmoid(points["features"]))
    torch.testing.assert_close(
        material.export(points["features"])["albedo"], torch.sigmoid(points["features"])
    )
    assert not material.requires_normal
    assert NoMaterial({"requires_normal": True}).requires_normal


def test_no_material_with_a_network():
    cfg = {"input_feature_dims": 8, "mlp_network_config": {"n_neurons": 4}, "color_activation": "none"}
    material = NoMaterial(cfg)
    x = torch.randn(5, 8)
    torch.testing.assert_close(material(x), material.network(x))


def test_no_material_refuses_what_does_not_fit():
    with pytest.raises(ConfigError, match="input_feature_dims"):
        NoMaterial({"mlp_network_config": {"n_neurons": 4}})
    with pytest.raises(ConfigError, match="n_feature_dims"):
        NoMaterial({})(torch.zeros(2, 4))


def test_diffuse_shading_by_hand():
    material, points = DiffuseWithPointLightMaterial({}).eval(), surface()
    material.do_update_step(0, 5000)
    assert material.requires_normal
    albedo = torch.sigmoid(points["features"])
    torch.testing.assert_close(material(**points), albedo, msg="light along the normal: 0.1 + 0.9")
    points["light_positions"] = -points["light_positions"]
    torch.testing.assert_close(material(**points), 0.1 * albedo)
    torch.testing.assert_close(material(**points, shading="textureless"), torch.full((6, 3), 0.1))
    torch.testing.assert_close(material(**points, ambient_ratio=0.4), 0.4 * albedo)


def test_albedo_only_at_the_start_and_on_test_if_asked():
    material, points = DiffuseWithPointLightMaterial({"ambient_only_steps": 10}), surface()
    albedo = torch.sigmoid(points["features"])
    material.do_update_step(0, 9)
    torch.testing.assert_close(material(**points, rng=STREAMS.at(9, [0])), albedo)
    material.do_update_step(0, 10)
    assert not material.ambient_only
    on_test = DiffuseWithPointLightMaterial({"ambient_only_on_test": True}).eval()
    on_test.do_update_step(0, 5000)
    torch.testing.assert_close(on_test(**points), albedo)


def test_choices_have_their_probabilities_and_are_the_same_on_every_rank():
    material = DiffuseWithPointLightMaterial({"diffuse_prob": 0.75, "textureless_prob": 0.5})
    material.do_update_step(0, 1000)
    chosen = [material.choose_shading(STREAMS.at(step, [step])) for step in range(4000)]
    other_rank = [material.choose_shading(STREAMS.at(step, [step + 99, step + 100])) for step in range(4000)]
    assert chosen == other_rank
    share = {kind: chosen.count(kind) / 4000 for kind in ("albedo", "textureless", "diffuse")}
    assert share == pytest.approx({"albedo": 0.25, "textureless": 0.375, "diffuse": 0.375}, abs=0.03)


def test_soft_shading_trades_ambient_for_diffuse():
    material, points = DiffuseWithPointLightMaterial({"soft_shading": True}), surface()
    material.do_update_step(0, 1000)
    lit = material(**points, shading="textureless", rng=STREAMS.at(1, [0]))
    torch.testing.assert_close(lit, torch.ones(6, 3), msg="along the normal, ambient + diffuse = 1")
    points["light_positions"] = -points["light_positions"]
    dark = [material(**points, shading="textureless", rng=STREAMS.at(s, [0]))[0, 0].item() for s in range(20)]
    assert len(set(dark)) == 20 and 0 <= min(dark) < 0.3 < 0.7 < max(dark) <= 1


def test_a_probability_outside_0_to_1_is_refused():
    with pytest.raises(ConfigError, match="diffuse_prob"):
        DiffuseWithPointLightMaterial({"diffuse_prob": 1.5})
