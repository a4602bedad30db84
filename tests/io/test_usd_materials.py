"""Materials of stages that other programs wrote."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maquette.io.mesh import read_mesh
from maquette.ops.color import srgb_to_linear

pytest.importorskip("pxr", reason="usd-core is not installed")

STAGE = """#usda 1.0
(
    upAxis = "Z"
    metersPerUnit = 1
)
def Mesh "quad"
{{
    point3f[] points = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)]
    int[] faceVertexCounts = [4]
    int[] faceVertexIndices = [0, 1, 2, 3]
    texCoord2f[] primvars:st = [(0, 0), (1, 0), (1, 1), (0, 1)] ( interpolation = "vertex" )
    rel material:binding = </look>
}}
def Material "look"
{{
    {interface}
    token outputs:surface.connect = </look/surface.outputs:surface>
    def Shader "surface"
    {{
        uniform token info:id = "UsdPreviewSurface"
        {inputs}
        token outputs:surface
    }}
    {shaders}
}}
"""
SHADER = """def Shader "{name}"
    {{
        uniform token info:id = "UsdUVTexture"
        asset inputs:file = @./{name}.png@
        {options}
        float3 outputs:rgb
        float outputs:r
        float outputs:g
        float outputs:b
        float outputs:a
    }}
"""


def connected(name: str, source: str) -> str:
    kind = "color3f" if name == "diffuseColor" else "float"
    shader, output = source.split(".")
    return f"{kind} inputs:{name}.connect = </look/{shader}.outputs:{output}>"


def picture(folder: Path, name: str, size: tuple[int, int] = (4, 4), channels: int = 3) -> torch.Tensor:
    """A picture of random values; what the reader should see of it, always with three or four channels."""
    draw = np.random.default_rng(len(name))
    values = draw.integers(0, 256, (*size, channels), dtype=np.uint8)
    Image.fromarray(values[..., 0] if channels == 1 else values).save(folder / f"{name}.png")
    seen = torch.from_numpy(values.astype(np.float32) / 255.0)
    return seen.expand(*size, 3) if channels == 1 else seen


def read(folder: Path, inputs: list[str], interface: str = "", **shaders: str) -> dict[str, torch.Tensor]:
    """The maps of a stage; `shaders` names the textures, with further options."""
    written = [SHADER.format(name=name, options=options) for name, options in shaders.items()]
    text = STAGE.format(inputs="\n".join(inputs), shaders="\n".join(written), interface=interface)
    (folder / "a.usda").write_text(text)
    return read_mesh(folder / "a.usda").texture


@pytest.mark.parametrize("channels", [1, 3])
def test_separate_pictures_of_roughness_and_metalness(tmp_path: Path, channels: int) -> None:
    rough = picture(tmp_path, "rough", (4, 4), channels)
    metal = picture(tmp_path, "metal", (4, 4), channels)
    color = picture(tmp_path, "color")
    inputs = [connected("roughness", "rough.r"), connected("metallic", "metal.r")]
    found = read(tmp_path, [*inputs, connected("diffuseColor", "color.rgb")], rough="", metal="", color="")
    assert set(found) == {"base_color", "metallic_roughness"}
    torch.testing.assert_close(found["base_color"], color)
    packed = torch.stack([torch.ones(4, 4), rough[..., 0], metal[..., 0]], dim=-1)
    torch.testing.assert_close(found["metallic_roughness"], packed)


@pytest.mark.parametrize("outputs", ["gb", "bg", "ra", "gr"])
def test_the_outputs_say_which_channels_of_one_picture(tmp_path: Path, outputs: str) -> None:
    both = picture(tmp_path, "both", channels=4)
    rough, metal = outputs
    inputs = [connected("roughness", f"both.{rough}"), connected("metallic", f"both.{metal}")]
    found = read(tmp_path, inputs, both="")["metallic_roughness"]
    torch.testing.assert_close(found[..., 1], both[..., "rgba".index(rough)])
    torch.testing.assert_close(found[..., 2], both[..., "rgba".index(metal)])


@pytest.mark.parametrize(("said", "metalness"), [(["float inputs:metallic = 0.75"], 0.75), ([], 0.0)])
def test_a_number_beside_a_picture(tmp_path: Path, said: list[str], metalness: float) -> None:
    rough = picture(tmp_path, "rough")
    found = read(tmp_path, [connected("roughness", "rough.g"), *said], rough="")["metallic_roughness"]
    torch.testing.assert_close(found[..., 1], rough[..., 1])
    assert bool((found[..., 2] == metalness).all())


def test_metalness_alone_leaves_the_roughness_that_nobody_told(tmp_path: Path) -> None:
    metal = picture(tmp_path, "metal")
    found = read(tmp_path, [connected("metallic", "metal.b")], metal="")["metallic_roughness"]
    torch.testing.assert_close(found[..., 2], metal[..., 2])
    assert bool((found[..., 1] == 0.5).all())


def test_pictures_of_two_sizes_and_a_gloss_that_is_turned_into_roughness(tmp_path: Path) -> None:
    gloss = picture(tmp_path, "gloss", (8, 6))
    picture(tmp_path, "metal", (2, 3))
    turned = "float4 inputs:scale = (-1, -1, -1, 1)\n        float4 inputs:bias = (1, 1, 1, 0)"
    inputs = [connected("roughness", "gloss.r"), connected("metallic", "metal.r")]
    found = read(tmp_path, inputs, gloss=turned, metal="")["metallic_roughness"]
    assert found.shape == (8, 6, 3)
    torch.testing.assert_close(found[..., 1], 1.0 - gloss[..., 0])


def test_values_come_through_the_interface_of_the_material(tmp_path: Path) -> None:
    rough = picture(tmp_path, "rough")
    interface = "float inputs:shine = 0.25"
    inputs = [connected("roughness", "rough.g"), "float inputs:metallic.connect = </look.inputs:shine>"]
    found = read(tmp_path, inputs, interface, rough="")["metallic_roughness"]
    torch.testing.assert_close(found[..., 1], rough[..., 1])
    assert bool((found[..., 2] == 0.25).all())


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (["float inputs:metallic = 1", "float inputs:roughness = 0.2"], [1.0, 0.2, 1.0]),
        (["float inputs:roughness = 0.25"], [1.0, 0.25, 0.0]),
        (["float inputs:metallic = 1"], [1.0, 0.5, 1.0]),
    ],
)
def test_numbers_alone_become_a_map_of_one_texel(tmp_path: Path, inputs: list[str], expected: list) -> None:
    picture(tmp_path, "color")
    found = read(tmp_path, [connected("diffuseColor", "color.rgb"), *inputs], color="")
    assert set(found) == {"base_color", "metallic_roughness"}
    torch.testing.assert_close(found["metallic_roughness"], torch.tensor([[expected]]))


@pytest.mark.parametrize("inputs", [[], ["float inputs:metallic = 0", "float inputs:roughness = 1"]])
def test_numbers_that_say_nothing_leave_no_map(tmp_path: Path, inputs: list[str]) -> None:
    picture(tmp_path, "color")
    assert set(read(tmp_path, [connected("diffuseColor", "color.rgb"), *inputs], color="")) == {"base_color"}


@pytest.mark.parametrize("channels", [1, 3])
def test_colors_are_scaled_and_moved_as_light(tmp_path: Path, channels: int) -> None:
    seen = srgb_to_linear(picture(tmp_path, "color", channels=channels))
    options = "float4 inputs:scale = (0.5, 0.25, 1, 1)\n        float4 inputs:bias = (0, 0.25, 0.5, 0)"
    found = read(tmp_path, [connected("diffuseColor", "color.rgb")], color=options)["base_color"]
    wanted = (seen * torch.tensor([0.5, 0.25, 1.0]) + torch.tensor([0.0, 0.25, 0.5])).clamp(max=1.0)
    torch.testing.assert_close(srgb_to_linear(found), wanted, atol=1e-5, rtol=1e-4)
