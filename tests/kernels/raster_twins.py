"""Plain PyTorch versions of the rasteriser, for comparison; they work in the precision of their inputs.

The face of a pixel is searched "boxes": each face against the pixels of its box, `CHUNK` pairs at once, which
is the fastest way that we know; or "tiles": each tile of SIDE x SIDE pixels against all faces that touch it,
which is how one writes it first. Neither needs more memory when the mesh is larger.
"""

import torch
from torch import Tensor

from maquette.kernels.fragments import Fragments

CHUNK = 2**20
SIDE = 16
FARTHEST = 64
TINY = 1e-300


def rasterize(clip: Tensor, faces: Tensor, height: int, width: int, search: str = "boxes") -> Fragments:
    """Pixels against the planes through the eye and the edges of faces."""
    faces = faces.long()
    views = [_rasterize_view(corners, height, width, search) for corners in clip[:, faces].unbind(0)]
    return Fragments(*(torch.stack(part) for part in zip(*views, strict=True)))


def _rasterize_view(
    corners: Tensor, height: int, width: int, search: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`corners` (F, 3, 4) in clip space."""
    planes, nearness = _planes(corners, height, width)
    with torch.no_grad():
        nearest = _nearest_in_boxes if search == "boxes" else _nearest_in_tiles
        face = nearest(corners, planes, nearness, height, width)
    seen = (face >= 0).nonzero()[:, 0]
    n, d = planes[face[seen].long()], nearness[face[seen].long()]
    ray = _rays(seen, height, width, corners)
    products = (n * ray[:, None]).sum(-1)
    total = products.sum(-1, keepdim=True)
    weights = products / total
    slopes = 2 * (n[:, :2] - weights[:, :2, None] * n.sum(1, keepdim=True)) / total[..., None]
    pixels = height * width
    barycentric = corners.new_zeros(pixels, 2).index_copy(0, seen, weights[:, :2])
    depth = corners.new_ones(pixels, 1).index_copy(0, seen, 1 - 2 * (d * ray).sum(-1, keepdim=True))
    jacobian = corners.new_zeros(pixels, 4).index_copy(0, seen, slopes[..., :2].flatten(1).detach())
    shape = (height, width)
    return (
        face.reshape(shape),
        barycentric.reshape(*shape, 2),
        depth.reshape(*shape, 1),
        jacobian.reshape(*shape, 4),
    )


def _rays(pixel: Tensor, height: int, width: int, like: Tensor) -> Tensor:
    x, y = 2 * (pixel % width) + 1 - width, 2 * (pixel // width) + 1 - height
    return torch.stack([x, y, torch.ones_like(x)], -1).to(like)


def _planes(corners: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """(F, 3, 3): the plane opposite to each corner; (F, 3): (1 - z / w) / 2. Zero for degenerate faces."""
    scale = corners.new_tensor([width, height, 1.0])
    points = corners[..., [0, 1, 3]] * scale
    planes = torch.stack([torch.linalg.cross(points[:, k - 2], points[:, k - 1]) for k in range(3)], 1)
    volume = (points[:, 0] * planes[:, 0]).sum(-1)
    usable = torch.isfinite(corners).all(-1).all(-1) & (volume != 0)
    sign = torch.where(usable, volume.sign(), 0.0)
    planes = torch.where(usable[:, None, None], sign[:, None, None] * planes, 0.0)
    shares = (corners[..., 3] - corners[..., 2]) * 0.5 / torch.where(usable, volume.abs(), 1.0)[:, None]
    shares = torch.where(usable[:, None], shares, 0.0)
    return planes, (planes * shares[..., None]).sum(1)


def _boxes(corners: Tensor, height: int, width: int) -> Tensor:
    """(F, 4): first row, end, first column, end; the whole picture where a corner is in front of it."""
    size = corners.new_tensor([width, height])
    pixels = (corners[..., :2] / corners[..., 3:] + 1) * 0.5 * size - 0.5
    low = torch.minimum((pixels.amin(1) - 1e-4).ceil().clamp(min=0), size)
    high = torch.minimum((pixels.amax(1) + 1e-4).floor() + 1, size).clamp(min=0)
    behind = (corners[..., 2] + corners[..., 3] <= 0).any(1, keepdim=True)
    low, high = torch.where(behind, 0.0, low), torch.where(behind, size, high)
    usable = torch.isfinite(corners).all(-1).all(-1)
    box = torch.where(usable[:, None], torch.stack([low[:, 1], high[:, 1], low[:, 0], high[:, 0]], 1), 0.0)
    return box.long()


def _nearest_in_boxes(corners: Tensor, planes: Tensor, nearness: Tensor, height: int, width: int) -> Tensor:
    """(H * W,) int32, -1 where nothing is."""
    boxes = _boxes(corners, height, width)
    columns = (boxes[:, 3] - boxes[:, 2]).clamp(min=0)
    counts = (boxes[:, 1] - boxes[:, 0]).clamp(min=0) * columns
    least = _least(planes)
    depth = planes.new_full((height * width,), torch.inf)
    face = torch.full((height * width,), len(corners), dtype=torch.long)
    parts = torch.cumsum(counts, 0) // CHUNK
    for part in torch.unique_consecutive(parts[counts > 0]).tolist():
        few = ((parts == part) & (counts > 0)).nonzero()[:, 0]
        f = few.repeat_interleave(counts[few])
        first = torch.cumsum(counts[few], 0) - counts[few]
        place = torch.arange(len(f)) - first.repeat_interleave(counts[few])
        pixel = (boxes[f, 0] + place // columns[f]) * width + boxes[f, 2] + place % columns[f]
        ray = _rays(pixel, height, width, planes)
        products = torch.einsum("pij,pj->pi", planes[f], ray)
        near = (nearness[f] * ray).sum(-1)
        inside = (products >= least[f]).all(-1) & (products.sum(-1) > 0) & (near >= 0) & (near <= 1)
        _enter(depth, face, pixel[inside], -near[inside], f[inside])
    return torch.where(face < len(corners), face, -1).int()


def _nearest_in_tiles(corners: Tensor, planes: Tensor, nearness: Tensor, height: int, width: int) -> Tensor:
    """(H * W,) int32, -1 where nothing is."""
    top, bottom, left, right = _boxes(corners, height, width).unbind(1)
    number = torch.arange(height * width).reshape(height, width)
    least, face = _least(planes), torch.full((height * width,), -1, dtype=torch.int32)
    for row in range(0, height, SIDE):
        strip = ((top < row + SIDE) & (bottom > row) & (left < right)).nonzero()[:, 0]
        for column in range(0, width, SIDE):
            touching = strip[(left[strip] < column + SIDE) & (right[strip] > column)]
            pixel = number[row : row + SIDE, column : column + SIDE].reshape(-1)
            nearest = planes.new_zeros(len(pixel))
            for few in touching.split(max(1, CHUNK // len(pixel))) if len(touching) else ():
                rays = _rays(pixel, height, width, planes).T
                products, near = planes[few] @ rays, nearness[few] @ rays
                inside = (products >= least[few, :, None]).all(1) & (products.sum(1) > 0)
                near = torch.where(inside & (near >= 0) & (near <= 1), near, -1.0)
                best = near.amax(0)
                first = torch.where(near == best, few[:, None], len(corners)).amin(0)
                closer = best > nearest
                face[pixel[closer]] = first[closer].int()
                nearest = torch.maximum(nearest, best)
    return face


def _least(planes: Tensor) -> Tensor:
    """Of two faces at an edge only one owns the rays exactly on it."""
    owned = (planes[..., 0] > 0) | ((planes[..., 0] == 0) & (planes[..., 1] > 0))
    return torch.where(owned, 0.0, TINY if planes.dtype == torch.float64 else 1e-38).to(planes)


def _enter(depth: Tensor, face: Tensor, pixel: Tensor, near: Tensor, f: Tensor) -> None:
    before = depth.clone()
    depth.scatter_reduce_(0, pixel, near, "amin")
    face[depth < before] = torch.iinfo(torch.long).max
    best = near == depth[pixel]
    face.scatter_reduce_(0, pixel[best], f[best], "amin")


def interpolate(values: Tensor, fragments: Fragments, faces: Tensor) -> Tensor:
    """Values of the corners times their weights."""
    return _weighted(values, fragments, faces, fragments.barycentric)


def interpolate_jacobian(values: Tensor, fragments: Fragments, faces: Tensor) -> Tensor:
    """Values of the corners times the change of their weights."""
    along = [_weighted(values, fragments, faces, fragments.jacobian[..., k::2], 0.0) for k in range(2)]
    return torch.stack(along, -1).flatten(-2)


def _weighted(values: Tensor, fragments: Fragments, faces: Tensor, uv: Tensor, total: float = 1.0) -> Tensor:
    weights = torch.cat([uv, total - uv.sum(-1, keepdim=True)], -1)
    corners = faces.long()[fragments.face.long().clamp(min=0)]
    view = torch.arange(len(uv))[:, None, None, None]
    picked = values[corners] if values.ndim == 2 else values[view, corners]
    return (picked * weights[..., None]).sum(-2) * fragments.mask[..., None]


def opposite_half_edges(faces: Tensor) -> Tensor:
    """By sorting the pairs of vertices."""
    a, b = faces.long().reshape(-1), faces.long()[:, [1, 2, 0]].reshape(-1)
    key = torch.minimum(a, b) * (int(faces.max()) + 1 if len(faces) else 1) + torch.maximum(a, b)
    key, order = key.sort(stable=True)
    _, inverse, counts = torch.unique_consecutive(key, return_inverse=True, return_counts=True)
    paired = (counts[inverse] == 2) & (a != b)[order]
    opposite = torch.full_like(key, -1)
    pairs = order[paired].reshape(-1, 2)
    opposite[pairs[:, 0]], opposite[pairs[:, 1]] = pairs[:, 1], pairs[:, 0]
    return opposite


def antialias(color: Tensor, fragments: Fragments, clip: Tensor, faces: Tensor) -> Tensor:
    """Silhouettes between neighbours, all pairs at once; then the blend."""
    height, width = color.shape[1:3]
    number = torch.arange(color.shape[0] * height * width).reshape(-1, height, width)
    flat = color.reshape(-1, color.shape[-1])
    out, opposite = flat, opposite_half_edges(faces)
    for first, second in ((number[:, :, :-1], number[:, :, 1:]), (number[:, :-1], number[:, 1:])):
        pairs = torch.stack([first.reshape(-1), second.reshape(-1)], 1)
        pairs, shift = _silhouettes(pairs, fragments, clip, faces.long(), opposite, height, width)
        difference = flat[pairs[:, 0]] - flat[pairs[:, 1]]
        # At a shift of zero both sides have a gradient, of one half.
        taken, given = shift.clamp(min=0), (-shift).clamp(min=0)
        out = out.index_add(0, pairs[:, 1], taken[:, None] * difference)
        out = out.index_add(0, pairs[:, 0], -given[:, None] * difference)
    return out.reshape(color.shape)


def _silhouettes(
    pairs: Tensor,
    fragments: Fragments,
    clip: Tensor,
    faces: Tensor,
    opposite: Tensor,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor]:
    """The pairs with a silhouette, and where it passes, from -1/2 to 1/2; carries gradients to `clip`."""
    face, depth = fragments.face.reshape(-1).long(), fragments.depth.detach().reshape(-1)
    pairs = pairs[face[pairs[:, 0]] != face[pairs[:, 1]]]
    pairs = pairs[~_continues(fragments.jacobian.reshape(-1, 4)[pairs], faces, opposite, face[pairs])]
    first_is_near = depth[pairs[:, 0]] <= depth[pairs[:, 1]]
    near = torch.where(first_is_near, pairs[:, 0], pairs[:, 1])
    far = torch.where(first_is_near, pairs[:, 1], pairs[:, 0])
    walk = _Walk(clip, near, far, height, width)
    with torch.no_grad():
        half_edge = walk.silhouettes(faces, opposite, face[near], face[far])
        found = half_edge >= 0
        found[found.clone()] = walk.few(found).are_across(*_ends(faces, half_edge[found]))
    walk, half_edge = _Walk(clip, near[found], far[found], height, width), half_edge[found]
    s, w = walk.cut(*(walk.coordinates(end) for end in _ends(faces, half_edge))).unbind(-1)
    return pairs[found], torch.where(first_is_near[found], 1.0, -1.0) * ((s / w).clamp(0, 1) - 0.5)


def _continues(jacobian: Tensor, faces: Tensor, opposite: Tensor, pairs: Tensor) -> Tensor:
    """Where two faces share an edge and show the same side."""
    turned = jacobian[..., 0] * jacobian[..., 3] < jacobian[..., 1] * jacobian[..., 2]
    same, (one, other) = turned[:, 0] == turned[:, 1], pairs.clamp(min=0).unbind(1)
    result = torch.zeros_like(same)
    for k in (2, 1, 0):
        half_edge = opposite[3 * one + k]
        shared = (half_edge >= 0) & (half_edge // 3 == other)
        aligned = faces.reshape(-1)[half_edge] != faces[one, k]
        result = torch.where(shared, aligned == same, result)
    return result & (pairs >= 0).all(1)


def _ends(faces: Tensor, half_edge: Tensor) -> list[Tensor]:
    after = torch.where(half_edge % 3 == 2, half_edge - 2, half_edge + 1)
    return [faces.reshape(-1)[half_edge], faces.reshape(-1)[after]]


class _Walk:
    """Cuts of the mesh by the planes through the eye and two pixel centres."""

    def __init__(self, clip: Tensor, near: Tensor, far: Tensor, height: int, width: int) -> None:
        self.clip, self.height, self.width = clip, height, width
        self.view = near // (height * width)
        ray = _rays(near % (height * width), height, width, clip)
        self.column, self.row = ray[:, 0], ray[:, 1]
        self.along_x = (near - far).abs() == 1 if width > 1 else torch.zeros_like(near, dtype=torch.bool)
        self.towards = (far - near).sign().to(clip)

    def few(self, rows: Tensor) -> "_Walk":
        part = object.__new__(_Walk)
        part.clip, part.height, part.width = self.clip, self.height, self.width
        for name in ("view", "column", "row", "along_x", "towards"):
            setattr(part, name, getattr(self, name)[rows])
        return part

    def coordinates(self, vertex: Tensor) -> Tensor:
        x, y, _, w = self.clip[self.view, vertex].unbind(-1)
        x, y = 0.5 * (x * self.width - self.column * w), 0.5 * (y * self.height - self.row * w)
        s, t = torch.where(self.along_x, x, y), torch.where(self.along_x, y, x)
        return torch.stack([self.towards * s, t, w], -1)

    @staticmethod
    def cut(p: Tensor, q: Tensor) -> Tensor:
        share = p[:, 1:2] / (p[:, 1:2] - q[:, 1:2])
        return (p + share * (q - p))[:, [0, 2]]

    def are_across(self, begin: Tensor, end: Tensor) -> Tensor:
        line = torch.linalg.cross(self.coordinates(begin), self.coordinates(end)).abs()
        return (line[:, 0] > line[:, 1]) | ((line[:, 0] == line[:, 1]) & self.along_x)

    def silhouettes(self, faces: Tensor, opposite: Tensor, near: Tensor, far: Tensor) -> Tensor:
        result, active = torch.full_like(near, -1), (near >= 0).nonzero()[:, 0]
        half_edge = self.few(active)._exit(faces, near[active])
        for _ in range(FARTHEST):
            active, half_edge = active[half_edge >= 0], half_edge[half_edge >= 0]
            walk = self.few(active)
            here = walk.cut(*(walk.coordinates(end) for end in _ends(faces, half_edge)))
            other = opposite[half_edge]
            following, ahead = walk._ahead(faces, other)
            beyond = ~((here[:, 1] > 0) & (here[:, 0] <= here[:, 1]))
            back = (other < 0) | (ahead[:, 0] * here[:, 1] < here[:, 0] * ahead[:, 1])
            result[active[back & ~beyond]] = half_edge[back & ~beyond]
            half_edge = torch.where(back | beyond | (other // 3 == far[active]), -1, following)
        return result

    def _exit(self, faces: Tensor, face: Tensor) -> Tensor:
        """The edge of the face with the largest s."""
        points = [self.coordinates(faces[face, k]) for k in range(3)]
        places = []
        for k in range(3):
            p, q = points[k], points[(k + 1) % 3]
            crossed = (p[:, 1] >= 0) != (q[:, 1] >= 0)
            places.append(torch.where(crossed, self.cut(p, q)[:, 0], -torch.inf))
        best, k = torch.stack(places, 1).max(1)
        return torch.where(torch.isfinite(best), 3 * face + k, -1)

    def _ahead(self, faces: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """The half-edge by which the cut leaves the next face, and where."""
        face, j = other.clamp(min=0) // 3, other.clamp(min=0) % 3
        begin, end, tip = (self.coordinates(faces[face, (j + k) % 3]) for k in range(3))
        to_end = (tip[:, 1] >= 0) == (begin[:, 1] >= 0)
        following = 3 * face + torch.where(to_end, (j + 1) % 3, (j + 2) % 3)
        return following, self.cut(tip, torch.where(to_end[:, None], end, begin))


def texture(
    image: Tensor,
    uv: Tensor,
    uv_jacobian: Tensor | None = None,
    filter: str = "linear",
    boundary: str = "wrap",
) -> Tensor:
    """Levels by pooling, four gathers a level."""
    levels = [image]
    while filter == "linear-mipmap-linear" and max(levels[-1].shape[1:3]) > 1:
        size = [max(1, n // 2) for n in levels[-1].shape[1:3]]
        smaller = torch.nn.functional.adaptive_avg_pool2d(levels[-1].permute(0, 3, 1, 2), size)
        levels.append(smaller.permute(0, 2, 3, 1))
    lod = uv.new_zeros(uv.shape[:-1])
    if len(levels) > 1:
        slopes = uv_jacobian.unflatten(-1, (2, 2)) * uv.new_tensor([image.shape[2], image.shape[1]])[:, None]
        longest = torch.linalg.matrix_norm(slopes, ord=2)
        lod = longest.clamp(min=1e-10).log2().clamp(0, len(levels) - 1)
    out = 0.0
    for number, level in enumerate(levels):
        share = (1 - (lod - number).abs()).clamp(min=0)[..., None]
        out = out + share * _at_level(level, uv, filter == "nearest", boundary)
    return out


def _at_level(image: Tensor, uv: Tensor, nearest: bool, boundary: str) -> Tensor:
    height, width = image.shape[1:3]
    x, y = uv[..., 0] * width, (1 - uv[..., 1]) * height
    if nearest:
        return _texels(image, y.floor().long(), x.floor().long(), boundary)
    x, y = x - 0.5, y - 0.5
    column, row = x.detach().floor().long(), y.detach().floor().long()
    x, y = (x - column)[..., None], (y - row)[..., None]
    upper = (1 - x) * _texels(image, row, column, boundary) + x * _texels(image, row, column + 1, boundary)
    row = row + 1
    lower = (1 - x) * _texels(image, row, column, boundary) + x * _texels(image, row, column + 1, boundary)
    return (1 - y) * upper + y * lower


def _texels(image: Tensor, row: Tensor, column: Tensor, boundary: str) -> Tensor:
    height, width = image.shape[1:3]
    outside = (row < 0) | (row >= height) | (column < 0) | (column >= width)
    if boundary == "wrap":
        row, column = row % height, column % width
    row, column = row.clamp(0, height - 1), column.clamp(0, width - 1)
    view = torch.arange(len(row))[:, None, None] if len(image) > 1 else 0
    picked = image[view, row, column]
    return torch.where(outside[..., None], 0.0, picked) if boundary == "border" else picked
