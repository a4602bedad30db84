"""Cases of what volume rendering does with signed distances and proposals."""

import torch
from measure import Case
from torch import Tensor
from volume_twins import interlevel_loss as interlevel_twin
from volume_twins import neus_weights, volsdf_weights

from maquette.kernels.composite import composite
from maquette.kernels.proposal import interlevel_loss
from maquette.ops.rays import pack_counts
from maquette.ops.sdf import annealed_cosine, neus_thickness, volsdf_density

SAMPLES = 64


def cases(repeats_scale: float) -> list[Case]:
    """Rays of a picture of 64 x 64."""
    rays = max(64, int(4096 * repeats_scale))
    return [weights(rays, "NeuS"), weights(rays, "VolSDF"), proposal(rays)]


def weights(rays: int, rule: str) -> Case:
    """Twin: the papers' formulas on rays of equal length, through cumulative products."""
    torch.manual_seed(0)
    edges = torch.linspace(0.5, 1.5, SAMPLES + 1).expand(rays, -1)
    delta = edges[:, 1:] - edges[:, :-1]
    sdf = (1.0 - edges[:, 1:] + 0.05 * torch.randn(rays, SAMPLES)).requires_grad_()
    cosine = (torch.rand(rays, SAMPLES) * 2.0 - 1.0).requires_grad_()
    sharpness = torch.tensor(60.0, requires_grad=True)
    starts, ends = edges[:, :-1].reshape(-1), edges[:, 1:].reshape(-1)
    packed = pack_counts(torch.full((rays,), SAMPLES))
    values = torch.zeros(rays * SAMPLES, 1)
    inputs = [sdf, cosine, sharpness] if rule == "NeuS" else [sdf, sharpness]

    def density() -> Tensor:
        if rule == "VolSDF":
            return volsdf_density(sdf, sharpness)
        return neus_thickness(sdf, annealed_cosine(cosine, 0.5), delta, sharpness) / delta

    def ours() -> None:
        found = composite(density().reshape(-1), values, starts, ends, packed, 0.0)[3]
        torch.autograd.grad(found.square().sum(), inputs)

    def theirs() -> None:
        if rule == "VolSDF":
            found = volsdf_weights(sdf, delta, sharpness)
        else:
            found = neus_weights(sdf, cosine, delta, sharpness, 0.5)
        torch.autograd.grad(found.square().sum(), inputs)

    return Case(name=f"weights by {rule}", pairs=rays * SAMPLES, kernel=ours, twin=theirs)


def proposal(rays: int) -> Case:
    """Twin: all pairs of intervals of a ray."""
    torch.manual_seed(0)
    fine, coarse = (torch.rand(rays, SAMPLES + 1).sort(-1).values for _ in range(2))
    seen = torch.rand(rays, SAMPLES) / SAMPLES
    proposed = (torch.rand(rays, SAMPLES) / SAMPLES).requires_grad_()

    def train(loss: Tensor) -> None:
        torch.autograd.grad(loss.sum(), proposed)

    return Case(
        name=f"interlevel loss, {SAMPLES} to {SAMPLES}",
        pairs=rays * SAMPLES * SAMPLES,
        kernel=lambda: train(interlevel_loss(fine, seen, coarse, proposed)),
        twin=lambda: train(interlevel_twin(fine, seen, coarse, proposed)),
    )
