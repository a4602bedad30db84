"""Gaussian splatting in plain PyTorch, in any precision: projection of all at once, blending tile by tile.

Each tile of SIDE x SIDE pixels blends, in tensors of (Gaussians of the tile, pixels), the depth-sorted
Gaussians whose box touches it; autograd does the rest. This is how one writes it in PyTorch when it has to be
quick as well.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

SIDE = 16
FAINTEST, DENSEST, DARK, LOW_PASS, BLUR = 1.0 / 255.0, 0.99, 1e-4, 0.3, 2.0


@dataclass
class View:
    """Gaussians on one picture."""

    centre: Tensor
    frame: Tensor
    """Pixels to units of the Gaussian, (N, 2, 2)."""
    slant: Tensor
    depth: Tensor
    half: Tensor
    """Half the box, pixels."""
    seen: Tensor


def rotation_matrices(q: Tensor) -> Tensor:
    w, x, y, z = normalize(q, dim=-1).unbind(-1)
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)]
    rows += [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)]
    rows += [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]
    return torch.stack(rows, -1).view(-1, 3, 3)


def project(means, rotations, scales, opacities, w2c, k, height, width, primitive="3d", near=0.01) -> View:
    """EWA (Zwicker et al. 2002, eq. 29), or the plane of a flat Gaussian (Huang et al. 2024, eq. 8-10)."""
    points = means @ w2c[:3, :3].T + w2c[:3, 3]
    z = points[:, 2]
    ahead = z > near
    z = torch.where(ahead, z, 1.0)
    focal, centre = torch.stack([k[0, 0], k[1, 1]]), torch.stack([k[0, 2], k[1, 2]])
    size = k.new_tensor([width, height])
    bearing = points[:, :2] / z[:, None]
    axes = w2c[:3, :3] @ (rotation_matrices(rotations) * scales[:, None])
    far = (2.0 * torch.log(255.0 * opacities.detach())).clamp(min=0.0)
    if primitive == "3d":
        margin = 0.15 * size / focal
        low, high = -centre / focal - margin, (size - centre) / focal + margin
        held = torch.maximum(torch.minimum(bearing, high), low)
        spread = (focal / z[:, None])[..., None] * (axes[:, :2] - held[..., None] * axes[:, 2:])
        covariance = spread @ spread.mT + LOW_PASS * torch.eye(2, dtype=z.dtype)
        frame = torch.linalg.inv(torch.linalg.cholesky(covariance))
        slant = torch.zeros_like(bearing)
        half = (far[:, None] * covariance.detach().diagonal(dim1=-2, dim2=-1)).sqrt()
    else:
        spread = (focal / z[:, None])[..., None] * (axes[:, :2] - bearing[..., None] * axes[:, 2:])[..., :2]
        frame = torch.linalg.inv(spread)
        slant = -(axes[:, 2:, :2] @ frame)[:, 0] / z[:, None]
        half = flat_half(spread.detach(), (axes[:, 2, :2] / z[:, None]).detach(), far)
    return View(bearing * focal + centre, frame, slant, z, half, ahead & (far > 0.0))


def flat_half(spread: Tensor, tilt: Tensor, far: Tensor) -> Tensor:
    """Half the box around the centre of a disc in perspective, or of its blur."""
    inner = (1.0 - far * tilt.square().sum(-1))[:, None]
    middle = far[:, None] * (spread @ tilt[..., None])[..., 0] / inner
    size = far[:, None] * spread.square().sum(-1) / inner
    half = torch.where(inner > 1e-3, middle.abs() + (middle.square() + size).sqrt(), 1e6)
    return torch.maximum(half, (far / BLUR).sqrt()[:, None])


def splat(
    means, rotations, scales, opacities, colors, w2c, intrinsics, height, width, *, primitive="3d",
    background=None, near=0.01, normals=None, boxes=True, save_memory=False,
) -> dict[str, Tensor]:  # fmt: skip
    """Color, opacity, depth, normal and means2d; `normals` are those of the Gaussians (B, N, 3).

    Without `boxes` every pixel looks at every Gaussian.
    """
    views = len(w2c)
    colors = colors.expand(views, *colors.shape[-2:])
    features = colors if normals is None else torch.cat([colors, normals], -1)
    geometry = (means, rotations, scales, opacities)
    seen = [project(*geometry, w2c[b], intrinsics[b], height, width, primitive, near) for b in range(views)]
    means2d = torch.stack([view.centre for view in seen])
    pictures = []
    for view, centre, feature in zip(seen, means2d, features, strict=True):
        view.centre = centre
        view.half = view.half if boxes else torch.full_like(view.half, 1e9)
        pictures.append(blend(view, opacities, feature, height, width, primitive == "2d", save_memory))
    blended, depth, light = (torch.stack(items) for items in zip(*pictures, strict=True))
    color, normal = blended[..., : colors.shape[-1]], blended[..., colors.shape[-1] :]
    if background is not None:
        color = color + light * background.view(-1, 1, 1, colors.shape[-1])
    return {"color": color, "opacity": 1.0 - light, "depth": depth, "normal": normal, "means2d": means2d}


def blend(view: View, opacities, features, height, width, flat, save_memory) -> tuple[Tensor, Tensor, Tensor]:
    """Kerbl et al. 2023, eq. 3."""
    order = torch.where(view.seen, view.depth, torch.inf).detach().argsort()[: int(view.seen.sum())]
    fields = (view.centre, view.frame, view.slant, view.depth, opacities, features)
    fields = tuple(field[order] for field in fields)
    low, high = (view.centre - view.half)[order].detach(), (view.centre + view.half)[order].detach()
    columns = range(0, width, SIDE)
    bands = []
    for top in range(0, height, SIDE):
        tiles = []
        in_band = (low[:, 1] <= top + SIDE - 0.5) & (high[:, 1] >= top + 0.5)
        for left in columns:
            in_tile = in_band & (low[:, 0] <= left + SIDE - 0.5) & (high[:, 0] >= left + 0.5)
            touched = in_tile.nonzero()[:, 0]
            box = (top, min(top + SIDE, height), left, min(left + SIDE, width))
            arguments = (*(field[touched] for field in fields), box, flat)
            if save_memory:
                tiles.append(checkpoint(tile, *arguments, use_reentrant=False))
            else:
                tiles.append(tile(*arguments))
        bands.append(torch.cat(tiles, 1))
    blended = torch.cat(bands, 0)
    return blended[..., :-2], blended[..., -2:-1], blended[..., -1:]


def tile(centre, frame, slant, depth, opacity, features, box, flat) -> Tensor:
    """Features, depth and light of the pixels of one tile."""
    rows, columns = (torch.arange(a, b, dtype=centre.dtype) + 0.5 for a, b in (box[:2], box[2:]))
    dx = columns - centre[:, :1]
    dy = rows - centre[:, 1:]
    u = (frame[:, 0, 0, None] * dx)[:, None] + (frame[:, 0, 1, None] * dy)[:, :, None]
    v = (frame[:, 1, 0, None] * dx)[:, None] + (frame[:, 1, 1, None] * dy)[:, :, None]
    rho = u * u + v * v
    far = depth[:, None, None]
    if flat:
        h = 1.0 + (slant[:, :1] * dx)[:, None] + (slant[:, 1:] * dy)[:, :, None]
        nearer = 1.0 / torch.where(h > 0.0, h, 1e-10)
        in_plane, blur = rho * nearer * nearer, BLUR * ((dx * dx)[:, None] + (dy * dy)[:, :, None])
        far = torch.where(in_plane <= blur, nearer, 1.0) * far
        rho = torch.minimum(in_plane, blur)
    alpha = (opacity[:, None, None] * torch.exp(-0.5 * rho)).clamp(max=DENSEST)
    alpha = torch.where(alpha >= FAINTEST, alpha, 0.0).flatten(1)
    passes = torch.log1p(-alpha)
    before = torch.exp(passes.cumsum(0) - passes)
    lit = before >= DARK
    weight = torch.where(lit, alpha * before, 0.0)
    light = torch.exp(torch.where(lit, passes, 0.0).sum(0))
    depths = (weight * far.expand(len(far), len(rows), len(columns)).flatten(1)).sum(0)
    blended = torch.cat([weight.T @ features, depths[:, None], light[:, None]], -1)
    return blended.view(len(rows), len(columns), -1)


def harmonics(directions: Tensor, degree: int) -> Tensor:
    """Real spherical harmonics from associated Legendre polynomials, with the signs of the field's files."""
    x, y, z = directions.unbind(-1)
    phi = torch.atan2(y, x)
    basis = []
    for n in range(degree + 1):
        for m in range(-n, n + 1):
            k = abs(m)
            norm = (2 * n + 1) / (4 * torch.pi) * _factorial(n - k) / _factorial(n + k)
            trig = torch.sin(k * phi) if m < 0 else torch.cos(k * phi)
            scale = (2.0 * norm) ** 0.5 if m else norm**0.5
            basis.append(scale * trig * _legendre(n, k, z))
    return torch.stack(basis, -1)


def _factorial(n: int) -> float:
    return float(torch.arange(1, n + 1, dtype=torch.float64).prod())


def _legendre(n: int, m: int, z: Tensor) -> Tensor:
    """Associated Legendre polynomial with the Condon-Shortley phase."""
    double = float(torch.arange(2 * m - 1, 0, -2, dtype=torch.float64).prod()) if m else 1.0
    previous, current = torch.zeros_like(z), (-1) ** m * double * (1 - z * z).clamp(min=0.0) ** (0.5 * m)
    for level in range(m + 1, n + 1):
        following = (2 * level - 1) * z * current - (level + m - 1) * previous
        previous, current = current, following / (level - m)
    return current
