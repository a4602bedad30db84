import pytest
import torch

from maquette.core.errors import UserError
from maquette.io.textures import encode_texture, pack_metallic_roughness


def test_channels_are_those_of_gltf():
    metallic, roughness = torch.full((4, 5, 1), 0.25), torch.full((4, 5, 1), 0.75)
    packed = pack_metallic_roughness(metallic, roughness)
    torch.testing.assert_close(packed, torch.tensor([1.0, 0.75, 0.25]).expand(4, 5, 3))


def test_what_is_missing_is_rough_and_no_metal():
    half = torch.full((2, 1), 0.5)
    assert pack_metallic_roughness(roughness=half)[0].tolist() == [1.0, 0.5, 0.0]
    assert pack_metallic_roughness(metallic=half)[0].tolist() == [1.0, 1.0, 0.5]
    with pytest.raises(ValueError, match="needed"):
        pack_metallic_roughness()


def test_formats_are_named():
    image = torch.rand(3, 4, 3)
    assert encode_texture(image, "png").startswith(b"\x89PNG")
    assert encode_texture(image, "jpg").startswith(b"\xff\xd8")
    with pytest.raises(UserError, match="tga"):
        encode_texture(image, "tga")
