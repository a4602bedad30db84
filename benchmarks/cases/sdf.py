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
    """From distances to colors, opacity and depth of rays that have 1 to 64 samples, as after an occupancy
    grid. Twin: the papers' formulas on rays padded to the longest, through cumulative products.
    """
    torch.manual_seed(0)
    counts = torch.randint(1, SAMPLES + 1, (rays,))
    packed, ray = pack_counts(counts), torch.arange(rays).repeat_interleave(counts)
    place = torch.arange(len(ray)) - packed[:, 0].long()[ray]
    starts = 0.5 + place / SAMPLES
    ends = starts + 1.0 / SAMPLES
    sdf = (1.0 - ends + 0.05 * torch.randn(len(ray))).requires_grad_()
    cosine = (torch.rand(len(ray)) * 2.0 - 1.0).requires_grad_()
    values = torch.rand(len(ray), 3).requires_grad_()
    sharpness = torch.tensor(60.0, requires_grad=True)
    inputs = [sdf, values, sharpness] + [cosine] * (rule == "NeuS")

    def ours() -> None:
        delta = ends - starts
        if rule == "NeuS":
            density = neus_thickness(sdf, annealed_cosine(cosine, 0.5), delta, sharpness) / delta
        else:
            density = volsdf_density(sdf, sharpness)
        rgb, opacity, depth, _ = composite(density, values, starts, ends, packed, 0.0)
        torch.autograd.grad(rgb.sum() + opacity.sum() + depth.sum(), inputs)

    def padded(one: Tensor) -> Tensor:
        empty = one.new_full((rays * SAMPLES,), 10.0)
        return empty.index_copy(0, ray * SAMPLES + place, one).view(rays, SAMPLES)

    def theirs() -> None:
        delta = padded(ends - starts)
        if rule == "NeuS":
            found = neus_weights(padded(sdf), padded(cosine), delta, sharpness, 0.5)
        else:
            found = volsdf_weights(padded(sdf), delta, sharpness)
        weight = found.view(-1)[ray * SAMPLES + place]
        rgb = torch.zeros(rays, 3).index_add(0, ray, weight[:, None] * values)
        opacity = torch.zeros(rays).index_add(0, ray, weight)
        depth = torch.zeros(rays).index_add(0, ray, weight * 0.5 * (starts + ends))
        torch.autograd.grad(rgb.sum() + opacity.sum() + depth.sum(), inputs)

    return Case(name=f"{rule}: distances to colors", pairs=len(ray), kernel=ours, twin=theirs)


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
