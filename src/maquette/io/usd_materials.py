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
from maquette.ops.color import linear_to_srgb

_PICTURES = {"diffuseColor": BASE_COLOR, "normal": NORMAL}
"""Inputs that take a whole picture, and the map that each leads to."""
_NUMBERS = {"metallic": 0.0, "roughness": 0.5}
"""Inputs that take one channel of a picture, and what they are where nothing is said."""
_CHANNELS = {"rgb": 0, "r": 0, "g": 1, "b": 2, "a": 3}


@dataclass(frozen=True, eq=False)
class _Texture:
    """What an input of the surface reads: an output of a UsdUVTexture."""

    file: str
    picture: Float[Tensor, "H W C"]
    channel: int
    scale: float
    bias: float

    def values(self) -> Float[Tensor, "H W 1"]:
        """The channel, as the surface sees it; a grey picture has its value in each colour, and alpha 1."""
        has_alpha = self.picture.shape[-1] > 3
        if self.channel == 3 and not has_alpha:
            found = torch.ones_like(self.picture[..., :1])
        else:
            found = self.picture[..., min(self.channel, self.picture.shape[-1] - 1), None]
        return (found * self.scale + self.bias).clamp(0.0, 1.0)


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
    found = {key: one.picture for name, key in _PICTURES.items() if (one := read[name]) is not None}
    metallic, roughness = read["metallic"], read["roughness"]
    if metallic is not None and roughness is not None and _as_in_gltf(metallic, roughness):
        found[METALLIC_ROUGHNESS] = roughness.picture
    elif metallic is not None or roughness is not None:
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
    as_stored = all((one.scale, one.bias) == (1.0, 0.0) for one in (metallic, roughness))
    return one_file and as_stored and (roughness.channel, metallic.channel) == (1, 2)


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
        scale=1.0 if scale is None else float(scale[channel]),
        bias=0.0 if bias is None else float(bias[channel]),
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
