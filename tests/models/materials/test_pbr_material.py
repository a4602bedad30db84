import math

import pytest
import torch

from maquette.core.errors import ConfigError, MissingFileError
from maquette.core.registry import find
from maquette.io.hdr import write_hdr
from maquette.models.materials.pbr import STUDIO, PBRMaterial, environment_light
from maquette.ops.environment import texel_directions
from maquette.ops.tangents import east_of

FLAT = {"use_bump": False, "material_activation": "none", "max_metallic": 1.0}


def surface(n=6):
    generator = torch.Generator().manual_seed(0)
    normal = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)
    return {"viewdirs": -normal, "positions": normal, "shading_normal": normal}


def features(albedo, metallic, roughness, n=6):
    row = torch.tensor([*albedo, metallic, roughness])
    return row.expand(n, 5).clone()


@pytest.fixture(scope="module")
def even(tmp_path_factory):
    """Light of 0.5 from everywhere."""
    return str(write_hdr(tmp_path_factory.mktemp("even") / "even.hdr", torch.full((8, 16, 3), 0.5)))


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """Red light from the front (+x), green from the left (+y), blue from above, black elsewhere."""
    light = texel_directions(64, 128).clamp(min=0.0) ** 8
    return str(write_hdr(tmp_path_factory.mktemp("halves") / "halves.hdr", light))


def test_is_registered_with_the_fields_of_its_recipes():
    assert find("pbr-material", "material") is PBRMaterial
    material = PBRMaterial({})
    assert material.requires_normal and material.requires_tangent
    assert not PBRMaterial({"use_bump": False}).requires_tangent
    assert not list(material.parameters()) and not material.state_dict()


@pytest.mark.parametrize("roughness", [0.0, 0.5, 1.0])
def test_white_furnace(even, roughness):
    material = PBRMaterial({**FLAT, "environment_texture": even, "environment_scale": 1.0})
    seen = material(features=features([1.0, 1, 1], 0.0, roughness), **surface())
    torch.testing.assert_close(seen, torch.full((6, 3), 0.5), atol=3e-3, rtol=0)


def test_the_scale_is_a_factor(even):
    colors = [
        PBRMaterial({**FLAT, "environment_texture": even, "environment_scale": scale})(
            features=features([0.3, 0.5, 0.7], 0.2, 0.4), **surface()
        )
        for scale in (0.5, 1.0)
    ]
    torch.testing.assert_close(2 * colors[0], colors[1])


def test_a_mirror_shows_the_environment_the_right_way_round(halves):
    material = PBRMaterial(
        {**FLAT, "environment_texture": halves, "environment_scale": 1.0, "min_roughness": 0.0}
    )
    axes = torch.eye(3)
    seen = material(features=features([1.0, 1, 1], 1.0, 0.0, n=3), viewdirs=-axes, shading_normal=axes)
    torch.testing.assert_close(seen, axes, atol=0.05, rtol=0)
    turned = torch.nn.functional.normalize(torch.tensor([[1.0, 1.0, 0.0]]), dim=-1)
    grazing = material(
        features=features([1.0, 1, 1], 1.0, 0.0, n=1),
        viewdirs=torch.tensor([[-1.0, 0, 0]]),
        shading_normal=turned,
    )
    torch.testing.assert_close(grazing, axes[1:2], atol=0.05, rtol=0)


def test_roughness_blurs_and_metal_has_no_body(halves):
    material = PBRMaterial({**FLAT, "environment_texture": halves, "environment_scale": 1.0})
    front = {"viewdirs": -torch.eye(3)[:1], "shading_normal": torch.eye(3)[:1]}
    sharp, blurred = (material(features=features([1.0, 1, 1], 1.0, r, n=1), **front)[0] for r in (0.0, 1.0))
    assert sharp[0] > 0.9 > 2 * blurred[0] and blurred[1] > sharp[1]
    black_metal = material(features=features([0.0, 0, 0], 1.0, 0.5, n=1), **front)
    assert black_metal.max() < 0.05


def test_gradients_reach_everything_and_agree_with_differences(halves):
    cfg = {"environment_texture": halves, "environment_scale": 0.4}
    material = PBRMaterial(cfg).double()
    points = {name: value.double() for name, value in surface(4).items()}
    tilted = torch.nn.functional.normalize(points["shading_normal"] + 0.3, dim=-1)
    x = torch.randn(4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    x[:, 7] = -x[:, 7].abs()  # a bump cannot be straighter than straight

    def shade(x, normal):
        return material(features=x, viewdirs=points["viewdirs"], shading_normal=normal)

    inputs = (x.requires_grad_(True), tilted.requires_grad_(True))
    assert torch.autograd.gradcheck(shade, inputs, eps=1e-7, atol=1e-4)
    grad = torch.autograd.grad(shade(*inputs).sum(), inputs)
    assert (grad[0].abs().sum(dim=0) > 0).all() and (grad[1].abs().sum(dim=0) > 0).all()


def test_degenerate_normals_give_finite_values_and_gradients():
    material = PBRMaterial({})
    normal = torch.tensor([[0.0, 0, 0], [0, 0, 1], [0, 0, -1], [1, 0, 0]], requires_grad=True)
    x = torch.zeros(4, 8, requires_grad=True)
    color = material(features=x, viewdirs=torch.tensor([[0.0, 0, -1]]).expand(4, 3), shading_normal=normal)
    color.sum().backward()
    assert torch.isfinite(color).all()
    assert torch.isfinite(normal.grad).all() and torch.isfinite(x.grad).all()
    assert material(features=x[:0], viewdirs=normal[:0], shading_normal=normal[:0]).shape == (0, 3)


def test_a_bump_turns_the_normal_in_the_frame_of_the_surface():
    material = PBRMaterial({"material_activation": "none"})
    normal = torch.tensor([[1.0, 0, 0]])
    raw = torch.zeros(1, 8)
    raw[:, 5:] = torch.tensor([1.0, 0.5, 0.5])
    read = material.surface(raw)
    half = math.sqrt(0.5)
    torch.testing.assert_close(read.bump, torch.tensor([[half, 0, half]]))
    east = material.bumped(read, normal, None)
    torch.testing.assert_close(east, torch.tensor([[half, half, 0]]))
    upwards = material.bumped(read, normal, torch.tensor([[0.3, 0, 2.0]]))
    torch.testing.assert_close(upwards, torch.tensor([[half, 0, half]]))
    torch.testing.assert_close(east, material.bumped(read, normal, east_of(normal)))


def test_export_has_the_four_maps_within_their_ranges():
    material = PBRMaterial({})
    maps = material.export(10 * torch.randn(40, 8))
    assert {name: value.shape[1] for name, value in maps.items()} == {
        "albedo": 3,
        "metallic": 1,
        "roughness": 1,
        "bump": 3,
    }
    assert 0 <= maps["metallic"].min() and maps["metallic"].max() <= 0.9
    assert 0.08 <= maps["roughness"].min() and maps["roughness"].max() <= 0.9
    torch.testing.assert_close((2 * maps["bump"] - 1).norm(dim=-1), torch.ones(40))
    assert "bump" not in PBRMaterial({"use_bump": False}).export(torch.randn(2, 5))


def test_linear_light_agrees_with_the_display_curve(even):
    cfg = {**FLAT, "environment_texture": even, "environment_scale": 2.0, "linear_light": True}
    albedo = [0.2, 0.5, 0.8]
    seen = PBRMaterial(cfg)(features=features(albedo, 0.0, 1.0), **surface())
    assert ((seen - torch.tensor(albedo)).abs() < 0.06).all()


def test_the_light_is_filtered_once():
    first, second = environment_light(STUDIO), environment_light(STUDIO)
    assert first[0] is second[0] and first[1] is second[1]


def test_mistakes_are_named(tmp_path):
    with pytest.raises(MissingFileError, match="maquette/studio"):
        PBRMaterial({"environment_texture": str(tmp_path / "absent.hdr")})
    with pytest.raises(ConfigError, match="min_roughness"):
        PBRMaterial({"min_roughness": 0.95})
    with pytest.raises(ConfigError, match="environment_scale"):
        PBRMaterial({"environment_scale": 0.0})
    with pytest.raises(ConfigError, match="n_feature_dims"):
        PBRMaterial({})(features=torch.zeros(6, 5), **surface())
    with pytest.raises(ConfigError, match="normal_type"):
        PBRMaterial(FLAT)(features=torch.zeros(6, 5), viewdirs=torch.zeros(6, 3))
