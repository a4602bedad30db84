"""Distances to a triangle mesh, with a sign where there is an inside (Warp's bounding volume hierarchy)."""

# mypy: disable-error-code="index"
# (bodies of kernels are Warp's language)

from typing import Any

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.kernels.launch import MODULE_OPTIONS, array, launch_rows, start

wp.set_module_options(MODULE_OPTIONS)

FAR = 1.0e9
"""Points further away than this find nothing."""
ACCURACY = 2.0
"""How many times its own radius a group of faces must be away to count as one dipole."""


class MeshDistance:
    """A triangle mesh that answers how far points are from it, and on which side.

    Args:
        vertices: world positions, (V, 3); distances are differentiable with respect to them.
        faces: indices into `vertices`, counter-clockwise seen from outside, (F, 3).

    Raises:
        ConfigError: there is no face, a vertex is not finite, or a face names a vertex that is not there.
    """

    def __init__(self, vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> None:
        _check(vertices, faces)
        start()
        self.vertices, self.faces = vertices, faces.long()
        self._points = vertices.detach().float().contiguous()
        self._indices = faces.int().contiguous().view(-1)
        self._mesh = wp.Mesh(
            points=wp.from_torch(self._points, dtype=wp.vec3, requires_grad=False),
            indices=wp.from_torch(self._indices),
            support_winding_number=True,
        )

    def nearest(
        self, points: Float[Tensor, "N 3"]
    ) -> tuple[Float[Tensor, " N"], Int[Tensor, " N"], Float[Tensor, "N 2"]]:
        """Distance to the surface, the face that is nearest, and the place on it.

        The place is given as weights of the face's first and second corner; the third has one minus both.
        The distance is differentiable with respect to points and vertices (the place is held fixed, which
        changes nothing: it is the best one); its slope on the surface itself is taken as zero. Faces without
        area may be skipped.

        Raises:
            ConfigError: a point is not finite, or no face can be reached from it.
        """
        face, barycentric, _ = self._ask(points)
        return self._distance(points, face, barycentric), face, barycentric

    def signed(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
        """Distance to the surface, negative inside; differentiable as `nearest` is.

        Inside is where the generalised winding number is above one half (Jacobson et al. 2013; evaluated as
        in Barill et al. 2018). For a closed mesh with faces that look outwards that is exact; self
        intersections do no harm, and faces that look inwards make everything outside. An open mesh is
        closed, so to say, by the smooth surface where the winding number is one half; where the sign changes
        across a hole the distance jumps there.

        Raises:
            ConfigError: a point is not finite, or no face can be reached from it.
        """
        face, barycentric, inside = self._ask(points)
        distance = self._distance(points, face, barycentric)
        return torch.where(inside, -distance, distance)

    def winding_number(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
        """How often the surface goes around each point: 1 inside a closed mesh, 0 outside, between for holes.

        The sum of the solid angles of all faces over 4 pi (Van Oosterom and Strackee 1983), N times F work.
        """
        _check_points(points)
        queries = points.detach().float()
        out = torch.empty(len(points), device=points.device)
        args = [array(queries, wp.vec3), array(self._points, wp.vec3), array(self._indices), array(out)]
        launch_rows(_winding, len(points), args, points.device)
        return out.to(points.dtype)

    def _ask(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Nearest face, place on it, and whether the point is inside."""
        _check_points(points)
        queries, device, n = points.detach().float(), points.device, len(points)
        face = torch.empty(n, dtype=torch.int64, device=device)
        barycentric = torch.empty(n, 2, device=device)
        inside = torch.empty(n, dtype=torch.bool, device=device)
        outputs: list[Any] = [array(face), array(barycentric, wp.vec2), array(inside)]
        launch_rows(_closest, n, [self._mesh.id, array(queries, wp.vec3), *outputs], device)
        if n > 0 and bool((face < 0).any()):
            raise ConfigError(
                "mesh_distance.points", "points with no surface near", f"points within {FAR:g} units"
            )
        return face, barycentric.to(points.dtype), inside

    def _distance(self, points: Tensor, face: Tensor, barycentric: Tensor) -> Tensor:
        weights = torch.cat([barycentric, 1.0 - barycentric.sum(-1, keepdim=True)], -1)
        corners = self.vertices.to(points.dtype)[self.faces[face]]
        squared = (points - (corners * weights[..., None]).sum(1)).square().sum(-1)
        apart = squared > 0.0
        return torch.where(apart, torch.where(apart, squared, torch.ones_like(squared)).sqrt(), squared)


def _check(vertices: Tensor, faces: Tensor) -> None:
    if len(faces) == 0 or len(vertices) == 0:
        raise ConfigError("mesh_distance.faces", len(faces), "at least one face")
    if not bool(torch.isfinite(vertices).all()):
        raise ConfigError("mesh_distance.vertices", "vertices that are not finite", "finite coordinates")
    if int(faces.min()) < 0 or int(faces.max()) >= len(vertices):
        raise ConfigError(
            "mesh_distance.faces",
            f"indices {int(faces.min())} to {int(faces.max())}",
            f"indices of {len(vertices)} vertices",
        )


def _check_points(points: Tensor) -> None:
    if not bool(torch.isfinite(points).all()):
        raise ConfigError("mesh_distance.points", "points that are not finite", "finite coordinates")


@wp.kernel
def _closest(
    first: wp.int32,
    mesh: wp.uint64,
    points: wp.array[wp.vec3],
    out_face: wp.array[wp.int64],
    out_bary: wp.array[wp.vec2],
    out_inside: wp.array[wp.bool],
) -> None:
    i = first + wp.tid()
    query = wp.mesh_query_point_sign_winding_number(
        mesh, points[i], wp.static(wp.float32(FAR)), wp.static(wp.float32(ACCURACY))
    )
    out_face[i] = wp.int64(-1)
    if query.result:
        out_face[i] = wp.int64(query.face)
        out_bary[i] = wp.vec2(query.u, query.v)
        out_inside[i] = query.sign < 0.0


@wp.kernel
def _winding(
    first: wp.int32,
    points: wp.array[wp.vec3],
    vertices: wp.array[wp.vec3],
    indices: wp.array[wp.int32],
    out: wp.array[wp.float32],
) -> None:
    i = first + wp.tid()
    point = points[i]
    total = wp.float32(0.0)
    for f in range(indices.shape[0] // 3):
        a = vertices[indices[3 * f]] - point
        b = vertices[indices[3 * f + 1]] - point
        c = vertices[indices[3 * f + 2]] - point
        la = wp.length(a)
        lb = wp.length(b)
        lc = wp.length(c)
        volume = wp.dot(a, wp.cross(b, c))
        base = la * lb * lc + wp.dot(a, b) * lc + wp.dot(b, c) * la + wp.dot(c, a) * lb
        total += wp.atan2(volume, base)
    out[i] = total / wp.static(wp.float32(6.283185307179586))
