"""What volume rendering does with signed distances and proposals, in plain PyTorch."""

from torch import Tensor


def interlevel_loss(edges: Tensor, weights: Tensor, coarse: Tensor, proposal: Tensor) -> Tensor:
    """Mip-NeRF 360, eq. 12 and 13, every pair of intervals."""
    overlap = (coarse[:, None, :-1] < edges[:, 1:, None]) & (coarse[:, None, 1:] > edges[:, :-1, None])
    bound = (overlap * proposal[:, None]).sum(-1)
    return ((weights - bound).clamp(min=0).square() / (weights + 1e-7)).sum(-1)
