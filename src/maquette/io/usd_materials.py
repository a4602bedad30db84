"""The UsdPreviewSurface of a mesh in an open USD stage (openusd.org/release/spec_usdpreviewsurface.html)."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from maquette.core.errors import UserError
from maquette.io.images import picture_to_tensor
from maquette.io.textures import BASE_COLOR, METALLIC_ROUGHNESS, NORMAL, pack_metallic_roughness
from maquette.ops.color import linear_to_srgb, srgb_to_linear

_PICTURES = ("diffuseColor", "normal")
"""Inputs that take a whole picture."""
_NUMBERS = {"metallic": 0.0, "roughness": 0.5}
"""Inputs that take one channel of a picture, and what they are where nothing is said."""
_NO_MAP = {"metallic": 0.0, "roughness": 1.0}
"""What a mesh without a map of them has."""
_CHANNELS = {"rgb": 0, "r": 0, "g": 1, "b": 2, "a": 3}


@dataclass(frozen=True, eq=False)
class _Texture:
    """What an input of the surface reads: an output of a UsdUVTexture."""

    file: str
    picture: Float[Tensor, "H W C"]
    channel: int
    scale: Float[Tensor, " 4"]
    bias: Float[Tensor, " 4"]

    @property
    def as_stored(self) -> bool:
        """Whether the surface sees the picture as the file has it."""
        return bool((self.scale == 1.0).all()) and not bool(self.bias.any())

    def values(self) -> Float[Tensor, "H W 1"]:
        """The channel, as the surface sees it; a grey picture has its value in each colour, and alpha 1."""
        has_alpha = self.picture.shape[-1] > 3
        if self.channel == 3 and not has_alpha:
            found = torch.ones_like(self.picture[..., :1])
        else:
            found = self.picture[..., min(self.channel, self.picture.shape[-1] - 1), None]
        return (found * self.scale[self.channel] + self.bias[self.channel]).clamp(0.0, 1.0)

    def colors(self) -> Float[Tensor, "H W D"]:
        """The picture in sRGB; scale and bias are of linear light, to which USD turns a picture first."""
        if self.as_stored:
            return self.picture
        linear = srgb_to_linear(self.picture[..., :3])
        seen = (linear * self.scale[:3] + self.bias[:3]).clamp(0.0, 1.0)
        return torch.cat([linear_to_srgb(seen), self.picture[..., 3:]], dim=-1)


def preview_surface(prim: Any) -> Any:
    """The UsdPreviewSurface that is bound to a prim, or None."""
    from pxr import UsdShade

    material = UsdShade.MaterialBindingAPI(prim.GetPrim()).ComputeBoundMaterial()[0]
    source = material.ComputeSurfaceSource()[0] if material else None
    return source if source and source.GetIdAttr().Get() == "UsdPreviewSurface" else None


def surface_maps(surface: Any, path: Path) -> dict[str, Float[Tensor, "H W C"]]:
    """The maps of a surface by our names; metalness and roughness in one, whatever pictures they come from.

    Raises:
        UserError: a picture is not there, or damaged.
    """
    read = {name: _texture(surface.GetInput(name), path) for name in (*_PICTURES, *_NUMBERS)}
    found = {}
    if (color := read["diffuseColor"]) is not None:
        found[BASE_COLOR] = color.colors()
    if (normal := read["normal"]) is not None:
        found[NORMAL] = normal.picture
    metallic, roughness = read["metallic"], read["roughness"]
    if metallic is not None and roughness is not None and _as_in_gltf(metallic, roughness):
        found[METALLIC_ROUGHNESS] = roughness.picture
    elif metallic is not None or roughness is not None or _has_numbers(surface):
        both = [_values(surface, name, read[name]) for name in ("metallic", "roughness")]
        size = tuple(max(one.shape[axis] for one in both) for axis in (0, 1))
        found[METALLIC_ROUGHNESS] = pack_metallic_roughness(*(_resized(one, size) for one in both))
    return found


def constant_color(surface: Any, n_vertices: int) -> Float[Tensor, "V 3"] | None:
    """The material's own colour for every vertex, sRGB; None where it says none."""
    value = _plain(surface.GetInput("diffuseColor")) if surface is not None else None
    if value is None:
        return None
    return linear_to_srgb(torch.tensor(list(value))).clamp(0, 1).expand(n_vertices, 3).clone()


def _as_in_gltf(metallic: _Texture, roughness: _Texture) -> bool:
    """Whether one picture holds both, in the channels that glTF has them in."""
    one_file = metallic.file == roughness.file and roughness.picture.shape[-1] >= 3
    return (
        one_file
        and metallic.as_stored
        and roughness.as_stored
        and (roughness.channel, metallic.channel) == (1, 2)
    )


def _has_numbers(surface: Any) -> bool:
    """Whether metalness or roughness is a number, and not what they are without any map."""
    said = {name: _plain(surface.GetInput(name)) for name in _NUMBERS}
    return any(value is not None for value in said.values()) and said != _NO_MAP


def _values(surface: Any, name: str, texture: _Texture | None) -> Float[Tensor, "H W 1"]:
    if texture is not None:
        return texture.values()
    said = _plain(surface.GetInput(name))
    return torch.full((1, 1, 1), _NUMBERS[name] if said is None else float(said)).clamp(0.0, 1.0)


def _resized(image: Float[Tensor, "h w 1"], size: tuple[int, ...]) -> Float[Tensor, "H W 1"]:
    if image.shape[:2] == size:
        return image
    grown = torch.nn.functional.interpolate(image.permute(2, 0, 1)[None], size, mode="bilinear")
    return grown[0].permute(1, 2, 0)


def _source(shader_input: Any) -> Any:
    """The attribute an input's value comes from, through whatever interfaces there are; None without one."""
    found = shader_input.GetValueProducingAttributes() if shader_input else []
    return found[0] if found else None


def _plain(shader_input: Any) -> Any:
    """The value of an input that no picture gives."""
    source = _source(shader_input)
    return None if source is None or source.GetName().startswith("outputs:") else source.Get()


def _texture(shader_input: Any, path: Path) -> _Texture | None:
    from pxr import UsdShade

    source = _source(shader_input)
    shader = UsdShade.Shader(source.GetPrim()) if source is not None else None
    if not shader or shader.GetIdAttr().Get() != "UsdUVTexture":
        return None
    channel = _CHANNELS.get(source.GetName().removeprefix("outputs:"), 0)
    scale, bias = _plain(shader.GetInput("scale")), _plain(shader.GetInput("bias"))
    file = _plain(shader.GetInput("file"))
    return _Texture(
        file=str(getattr(file, "resolvedPath", "")),
        picture=_picture(file, path),
        channel=channel,
        scale=torch.ones(4) if scale is None else torch.tensor(list(scale)),
        bias=torch.zeros(4) if bias is None else torch.tensor(list(bias)),
    )


def _picture(asset: Any, path: Path) -> Float[Tensor, "H W C"]:
    from pxr import Ar

    name = getattr(asset, "path", "")
    where = getattr(asset, "resolvedPath", "")
    content = Ar.GetResolver().OpenAsset(Ar.ResolvedPath(where)) if where else None
    if content is None:
        raise UserError(f"A texture of {path} was not found: {name}")
    try:
        with Image.open(io.BytesIO(bytes(content.GetBuffer()))) as picture:
            return picture_to_tensor(picture)
    except (OSError, SyntaxError, ValueError) as err:
        raise UserError(f"A texture of {path} cannot be read: {name}", [str(err)]) from err
