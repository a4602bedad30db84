"""The shapes that a surface can start from: a sphere, an ellipsoid, or the mesh of a file."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import ConfigError, UserError
from maquette.io.gltf import to_gltf_axes
from maquette.io.mesh import read_mesh
from maquette.kernels.mesh_distance import MeshDistance
from maquette.models.geometry.base import is_number
from maquette.ops.mesh import Mesh, edges, merge_vertices

SHAPES = "sphere, ellipsoid, or mesh:PATH"
MESH_PREFIX = "mesh:"
AXES = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}
WORLD_AXES = ("+z", "+x")
"""Up and front of the world, and the defaults of recipes."""

SignedDistance = Callable[[Float[Tensor, "*N 3"]], Float[Tensor, "*N 1"]]


def check_shape_init(
    shape_init: str | None, params: Any, up: str = "+z", front: str = "+x", field: str = "shape_init"
) -> None:
    """Refuse what can be seen to be wrong without opening a file; for the `__post_init__` of a Config.

    Args:
        field: the key of `system.geometry` that names the shape; its sizes are in `{field}_params`.

    The other arguments are those of `target_shape`.

    Raises:
        ConfigError: an unknown shape, sizes that it does not have, or axes that are none.
    """
    if not shape_init:
        return
    key = f"system.geometry.{field}"
    if shape_init == "ellipsoid":
        expected, lengths = "three numbers above 0: the half-axes", (3,)
    elif shape_init == "sphere":
        expected, lengths = "a number above 0: the radius", (1,)
    elif shape_init.startswith(MESH_PREFIX) and len(shape_init) > len(MESH_PREFIX):
        expected, lengths = "a number above 0 (or three): the largest coordinate", (1, 3)
    else:
        raise ConfigError(key, shape_init, SHAPES)
    _check_sizes(f"{key}_params", params, expected, lengths)
    axes_of_mesh(up, front)


def target_shape(shape_init: str, params: Any, up: str = "+z", front: str = "+x") -> SignedDistance:
    """The signed distance (negative inside, world units) of the shape that a recipe names.

    Args:
        shape_init: `sphere`, `ellipsoid` or `mesh:PATH`.
        params: the radius; the three half-axes; the largest coordinate of the mesh (see `shape_mesh`).
        up: where the mesh has its top, `+z` for example.
        front: where the mesh has its front.

    The ellipsoid's is `|x / half-axes| - 1`, zero at the right place but no distance elsewhere.

    Raises:
        ConfigError: see `check_shape_init`.
        MissingFileError: there is no such file.
        UserError: the file holds no closed mesh.
    """
    check_shape_init(shape_init, params, up, front)
    if shape_init == "sphere":
        return lambda points: points.norm(dim=-1, keepdim=True) - float(_sizes(params)[0])
    if shape_init == "ellipsoid":
        return lambda points: (points / points.new_tensor(_sizes(params))).norm(dim=-1, keepdim=True) - 1.0
    mesh = shape_mesh(shape_init, params, up, front)
    check_closed(mesh, shape_init)
    return signed_distance(mesh)


def signed_distance(mesh: Mesh) -> SignedDistance:
    """The signed distance to a closed mesh, negative inside; follows the device of its points."""
    built: dict[torch.device, MeshDistance] = {}

    def distance(points: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 1"]:
        device = points.device
        if device not in built:
            built[device] = MeshDistance(mesh.vertices.detach().to(device), mesh.faces.to(device))
        return built[device].signed(points.reshape(-1, 3)).reshape(*points.shape[:-1], 1)

    return distance


def shape_mesh(shape_init: str, params: Any, up: str = "+z", front: str = "+x") -> Mesh:
    """The mesh of a file, its vertices' mean at the origin, its largest absolute coordinate `params`.

    `up` and `front` are axes of the file. The defaults mean that the file is in the world frame; a GLB is
    then turned as its format says.

    Raises:
        MissingFileError: there is no such file.
        UserError: it holds no mesh, or one with positions that are not finite.
    """
    path = shape_init.removeprefix(MESH_PREFIX)
    mesh = read_mesh(path)
    vertices = mesh.vertices
    if not bool(torch.isfinite(vertices).all()):
        raise UserError(f"{path} has positions that are not finite and cannot be a shape to start from.")
    if (up, front) != WORLD_AXES and path.lower().endswith((".glb", ".gltf")):
        vertices = to_gltf_axes(vertices)
    centred = vertices - vertices.mean(dim=0)
    largest = centred.abs().max()
    if largest == 0:
        raise UserError(f"All points of {path} are in one place: it has no shape.")
    sizes = vertices.new_tensor(_sizes(params))
    return mesh.replace(vertices=centred / largest @ axes_of_mesh(up, front).T * sizes, extras={})


def axes_of_mesh(up: str, front: str) -> Float[Tensor, "3 3"]:
    """The rotation from a frame with these axes to the world's (up +z, front +x).

    Raises:
        ConfigError: a name that is no axis, or both along one axis.
    """
    z, x = _direction("shape_init_mesh_up", up), _direction("shape_init_mesh_front", front)
    if float(torch.dot(z, x).abs()) > 0.5:
        raise ConfigError("system.geometry.shape_init_mesh_front", front, f"an axis across {up}")
    return torch.stack([x, torch.linalg.cross(z, x), z])


def check_closed(mesh: Mesh, name: str) -> None:
    """Refuse a mesh without an inside.

    Raises:
        UserError: an edge that does not have exactly two faces.
    """
    counts = edges(merge_vertices(Mesh(mesh.vertices.detach(), mesh.faces)))[1]
    odd = int((counts != 2).sum())
    if odd or len(counts) == 0:
        raise UserError(
            f"The mesh is not closed, so it has no inside: {name}",
            [f"edges without exactly two faces: {odd} of {len(counts)}"],
            "close its holes first, or begin with shape_init=sphere; custom-mesh takes open meshes",
        )


def _direction(field: str, name: str) -> Tensor:
    if len(name) != 2 or name[0] not in "+-" or name[1] not in AXES:
        raise ConfigError(f"system.geometry.{field}", name, "one of +x, -x, +y, -y, +z, -z")
    return torch.tensor(AXES[name[1]]) * (1.0 if name[0] == "+" else -1.0)


def _sizes(params: Any) -> list[float]:
    return [float(one) for one in params] if isinstance(params, Sequence) else [float(params)]


def _check_sizes(key: str, params: Any, expected: str, lengths: tuple[int, ...]) -> None:
    values = list(params) if isinstance(params, Sequence) and not isinstance(params, str) else [params]
    if len(values) not in lengths or not all(is_number(one) and one > 0 for one in values):
        raise ConfigError(key, params, expected)
