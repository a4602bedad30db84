"""Texture maps as the bytes of picture files, and those that a read mesh refers to."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import UserError
from maquette.io.images import encode_image, picture_to_tensor, quantized

BASE_COLOR = "base_color"
"""Map of surface colours (sRGB)."""
METALLIC_ROUGHNESS = "metallic_roughness"
"""Map with roughness in its second and metalness in its third channel, as glTF has it."""
NORMAL = "normal"
"""Map of tangent-space normals."""
SPECULAR = "specular"
"""Map of the colours of reflections, which of our formats only OBJ has."""

FORMATS = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG"}
"""Accepted texture formats, and Pillow's names for them."""


def encode_texture(image: Float[Tensor, "H W C"], texture_format: str, quality: int = 95) -> bytes:
    """A map with values in [0, 1] as the bytes of a picture file.

    Raises:
        UserError: `texture_format` is none of "png", "jpg", "jpeg".
    """
    if texture_format not in FORMATS:
        raise UserError(f"Textures are stored as png or jpg, not {texture_format!r}.")
    return encode_image(quantized(image), FORMATS[texture_format], quality)


def pack_metallic_roughness(
    metallic: Float[Tensor, "*N 1"] | None = None, roughness: Float[Tensor, "*N 1"] | None = None
) -> Float[Tensor, "*N 3"]:
    """The channels of a `METALLIC_ROUGHNESS` map: one (no occlusion), roughness, metalness.

    What is not given is what glTF takes for no map at all: rough, and no metal.
    """
    given = metallic if metallic is not None else roughness
    if given is None:
        raise ValueError("metalness or roughness is needed")
    one = torch.ones_like(given)
    rough = one if roughness is None else roughness
    return torch.cat([one, rough, torch.zeros_like(one) if metallic is None else metallic], dim=-1)


def textures_of(material: Any) -> dict[str, Float[Tensor, "H W C"]]:
    """The maps that a trimesh material (simple or PBR) refers to, by our names."""
    sources = {
        BASE_COLOR: ("baseColorTexture", "image"),
        METALLIC_ROUGHNESS: ("metallicRoughnessTexture",),
        NORMAL: ("normalTexture",),
    }
    found = {}
    for name, attributes in sources.items():
        pictures = [getattr(material, attribute, None) for attribute in attributes]
        picture = next((one for one in pictures if one is not None), None)
        if picture is not None:
            found[name] = picture_to_tensor(picture)
    return found
