import math

import pytest
import torch

from maquette.core.errors import ConfigError, UnknownKeyError, UnknownNameError
from maquette.models.networks import get_encoding
from maquette.models.networks.spherical_harmonics import spherical_harmonics

SMALL = {
    "otype": "HashGrid",
    "n_levels": 4,
    "n_features_per_level": 2,
    "log2_hashmap_size": 10,
    "base_resolution": 4,
    "per_level_scale": 1.5,
}


def points(n=32):
    return torch.rand(n, 3, generator=torch.Generator().manual_seed(1))


def test_hash_grid_interpolates_between_its_nodes():
    encoding = get_encoding(3, {**SMALL, "n_levels": 1})
    nodes = torch.tensor([[0.25, 0.5, 0.75], [0.5, 0.5, 0.75]])
    ends, middle = encoding(nodes), encoding(nodes.mean(dim=0, keepdim=True))
    torch.testing.assert_close(middle[0], ends.mean(dim=0))


def test_include_xyz_puts_the_point_in_front():
    encoding = get_encoding(3, {**SMALL, "include_xyz": True})
    assert encoding.n_output_dims == 3 + 8
    torch.testing.assert_close(encoding(points())[:, :3], points() * 2 - 1)


def test_leading_dimensions_are_kept():
    encoding = get_encoding(3, SMALL)
    assert torch.equal(encoding(points(24).reshape(2, 3, 4, 3)).reshape(24, -1), encoding(points(24)))


def test_progressive_grid_opens_one_level_after_the_other():
    band = {"otype": "ProgressiveBandHashGrid", "start_level": 2, "start_step": 100, "update_steps": 50}
    encoding = get_encoding(3, {**SMALL, **band})
    for step, levels in [(0, 2), (149, 2), (150, 3), (200, 4), (10_000, 4)]:
        encoding.do_update_step(0, step)
        used = encoding(points()).reshape(-1, 4, 2).abs().sum(dim=(0, 2)) > 0
        assert used.tolist() == [True] * levels + [False] * (4 - levels)


def test_frequency_by_hand():
    encoding = get_encoding(3, {"otype": "Frequency", "n_frequencies": 2})
    x = torch.tensor([[0.25, 0.0, 0.5]])
    angles = [0.25, 0.0, 0.5]
    expected = []
    for k in range(2):
        expected += [math.sin(2**k * math.pi * a) for a in angles]
        expected += [math.cos(2**k * math.pi * a) for a in angles]
    torch.testing.assert_close(encoding(x), torch.tensor([expected]), atol=1e-6, rtol=0)


def test_progressive_frequency_fades_octaves_in():
    encoding = get_encoding(
        3, {"otype": "ProgressiveBandFrequency", "n_frequencies": 4, "n_masking_step": 100}
    )
    weights = []
    for step in (0, 25, 100):
        encoding.do_update_step(0, step)
        weights.append(encoding.encoding.band_weights())
    torch.testing.assert_close(weights[0], torch.zeros(4))
    torch.testing.assert_close(weights[1], torch.tensor([1.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(weights[2], torch.ones(4))


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_spherical_harmonics_are_orthonormal_over_the_sphere(degree):
    z, azimuth = torch.meshgrid(
        (torch.arange(200) + 0.5) / 100 - 1, torch.arange(64) * (2 * math.pi / 64), indexing="ij"
    )
    level = (1 - z**2).sqrt()
    d = torch.stack([level * azimuth.cos(), level * azimuth.sin(), z], dim=-1).reshape(-1, 3)
    values = spherical_harmonics(d, degree)
    gram = values.T @ values * (4 * math.pi / len(d))
    torch.testing.assert_close(gram, torch.eye(degree**2), atol=2e-3, rtol=0)


def test_harmonics_read_the_range_of_all_encodings():
    encoding = get_encoding(3, {"otype": "SphericalHarmonics", "degree": 2})
    d = torch.tensor([[0.0, 0.0, 1.0]])
    torch.testing.assert_close(encoding((d + 1) / 2), spherical_harmonics(d, 2))


def test_typos_are_answered():
    with pytest.raises(UnknownNameError, match="HashGrid"):
        get_encoding(3, {"otype": "HashGird"})
    with pytest.raises(UnknownKeyError, match="n_levels"):
        get_encoding(3, {"otype": "HashGrid", "n_level": 4})
    with pytest.raises(ConfigError, match=r"pos_encoding_config\.interpolation"):
        get_encoding(3, {"otype": "HashGrid", "type": "Hash", "interpolation": "Smoothstep"})
    with pytest.raises(ConfigError, match=r"encoding\.degree"):
        get_encoding(3, {"otype": "SphericalHarmonics", "degree": 9})
