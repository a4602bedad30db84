"""More Gaussians where the pictures ask for them, fewer where nothing is seen (Kerbl et al. 2023, 5)."""

import math
from typing import Any

import torch
from torch import Tensor

from maquette.core.random import StepRandom
from maquette.core.schedule import Schedule
from maquette.models.geometry.gaussian_rows import GaussianRows, Rows, kept
from maquette.ops.gaussians import shape_matrices

SHRINK = 1.6
"""How much smaller the two are that a large Gaussian is split into."""
FADE = 0.9
"""What a reset leaves of each opacity."""
BIG = 3.0
"""Times the mean radius on screen, from which `prune_big_points` prunes."""


class Densification:
    """The strategy `default`: clone, split, prune, and fade.

    A Gaussian whose place on the screen is pulled strongly is cloned when it is small, split in two when it
    is large. Transparent ones, and ones that cover too many pixels, are removed.
    """

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg
        self.grad_threshold = _schedule(cfg, "densify_grad_threshold")
        self.split_threshold = _schedule(cfg, "split_thresh")
        self.least_opacity = _schedule(cfg, "min_opac_prune")
        self.most_pixels = _schedule(cfg, "radii2d_thresh")

    def observes(self, step: int) -> bool:
        """Whether what is seen at this step still matters."""
        return step < max(self.cfg.densify_until_iter, self.cfg.prune_until_iter)

    @torch.no_grad()
    def step(self, cloud: GaussianRows, epoch: int, step: int, rng: StepRandom) -> Rows | None:
        """Do what is due after this optimiser step; the change of the rows, if there is one."""
        cfg, change = self.cfg, None
        if due(step, cfg.prune_from_iter, cfg.prune_until_iter, cfg.prune_interval):
            change = self.prune(cloud, epoch, step)
            if step % cfg.opacity_reset_interval == 0:
                faded = self.fade(cloud)
                change = faded if change is None else change.then(faded)
        if due(step, cfg.densify_from_iter, cfg.densify_until_iter, cfg.densification_interval):
            grown = self.densify(cloud, epoch, step, rng)
            change = grown if change is None else change.then(grown)
            cloud.forget_statistics()
        return change

    def prune(self, cloud: GaussianRows, epoch: int, step: int) -> Rows | None:
        """Remove transparent, oversized and stray Gaussians; of all, the most opaque one stays."""
        opacity, radius = cloud._opacity[:, 0], cloud.largest_radius
        keep = torch.sigmoid(opacity) >= self.least_opacity.at(step, epoch)
        keep &= radius <= self.most_pixels.at(step, epoch)
        if self.cfg.prune_big_points:
            keep &= radius <= BIG * radius.mean()
        if self.cfg.prune_outside:
            keep &= cloud._xyz.abs().amax(dim=-1) <= self.cfg.radius
        if not bool(keep.any()):
            keep[opacity.argmax()] = True
        if bool(keep.all()):
            return None
        rows = kept(keep)
        cloud.take(rows)
        return rows

    @torch.no_grad()
    def fade(self, cloud: GaussianRows) -> Rows:
        """Take a part of every opacity; what an optimizer knows of them is no longer true."""
        cloud._opacity.copy_(torch.logit(FADE * torch.sigmoid(cloud._opacity)))
        rows = torch.arange(cloud.n, device=cloud._opacity.device)
        return Rows(rows, torch.zeros_like(rows, dtype=torch.bool), frozenset({"_opacity"}))

    def densify(self, cloud: GaussianRows, epoch: int, step: int, rng: StepRandom) -> Rows | None:
        """Clone and split; where `max_num` leaves no room for all, those that are pulled most."""
        pull = cloud.gradient_sum / cloud.times_seen.clamp(min=1.0)
        wanted = pull >= self.grad_threshold.at(step, epoch)
        room = max(self.cfg.max_num - cloud.n, 0)
        if int(wanted.sum()) > room:
            strongest = pull.topk(room).indices
            wanted = torch.zeros_like(wanted).index_fill(0, strongest, True)
        large = cloud.scales.norm(dim=-1) > self.split_threshold.at(step, epoch)
        clone, split = (wanted & ~large).nonzero()[:, 0], (wanted & large).nonzero()[:, 0]
        if len(clone) + len(split) == 0:
            return None
        stay = (~(wanted & large)).nonzero()[:, 0]
        source = torch.cat([stay, clone, split, split])
        rows = Rows(source, torch.arange(len(source), device=source.device) >= len(stay))
        cloud.take(rows)
        self._scatter(cloud, 2 * len(split), rng)
        return rows

    def _scatter(self, cloud: GaussianRows, count: int, rng: StepRandom) -> None:
        """Let the last `count` rows stand where their Gaussians would draw a point, and be smaller."""
        if count == 0:
            return
        draws = rng.normal("gaussians/split", count, 3)[0].to(cloud._xyz)
        shapes = shape_matrices(cloud._rotation[-count:], cloud.scales[-count:])
        cloud._xyz[-count:] += (shapes @ draws[..., None])[..., 0]
        cloud._scaling[-count:] -= math.log(SHRINK)


def due(step: int, after: int, before: int, interval: int) -> bool:
    """Whether something that happens every `interval` steps happens now."""
    return after < step < before and step % interval == 0


def weighted_choice(weights: Tensor, draws: Tensor) -> Tensor:
    """Indices drawn in proportion to weights, for draws that are uniform in [0, 1)."""
    total = weights.double().cumsum(dim=0)
    return torch.searchsorted(total, draws.to(total) * total[-1], right=True).clamp(max=len(weights) - 1)


def _schedule(cfg: Any, name: str) -> Schedule:
    return Schedule.parse(getattr(cfg, name), key=f"system.geometry.{name}")
