"""What volume rendering does with signed distances and proposals, in plain PyTorch."""

import torch
from torch import Tensor


def interlevel_loss(edges: Tensor, weights: Tensor, coarse: Tensor, proposal: Tensor) -> Tensor:
    """Mip-NeRF 360, eq. 12 and 13, every pair of intervals."""
    overlap = (coarse[:, None, :-1] < edges[:, 1:, None]) & (coarse[:, None, 1:] > edges[:, :-1, None])
    bound = (overlap * proposal[:, None]).sum(-1)
    return ((weights - bound).clamp(min=0).square() / (weights + 1e-7)).sum(-1)


def neus_weights(sdf: Tensor, cosine: Tensor, delta: Tensor, inv_std: Tensor, anneal: float) -> Tensor:
    """NeuS, eq. 13 and 11, as they stand there, on rays with the same number of samples (R, S)."""
    slope = -(torch.relu(0.5 - 0.5 * cosine) * (1.0 - anneal) + torch.relu(-cosine) * anneal)
    before = torch.sigmoid((sdf - 0.5 * slope * delta) * inv_std)
    behind = torch.sigmoid((sdf + 0.5 * slope * delta) * inv_std)
    return _weights(((before - behind) / before).clamp(0.0, 1.0))


def volsdf_weights(sdf: Tensor, delta: Tensor, inv_std: Tensor) -> Tensor:
    """VolSDF, eq. 2 and 3, on rays with the same number of samples (R, S)."""
    half = 0.5 * torch.exp(-sdf.abs() * inv_std)
    density = inv_std * torch.where(sdf < 0.0, 1.0 - half, half)
    return _weights(1.0 - torch.exp(-density * delta))


def _weights(alpha: Tensor) -> Tensor:
    light = torch.cumprod(1.0 - alpha, -1)
    return alpha * torch.cat([torch.ones_like(light[:, :1]), light[:, :-1]], -1)
