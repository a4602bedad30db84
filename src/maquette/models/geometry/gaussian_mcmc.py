"""Gaussians as samples of a Markov chain: noise explores, dead ones move to where living ones are, and their
number grows to a limit (Kheradmand et al. 2024, "3D Gaussian Splatting as Markov Chain Monte Carlo").
"""

from typing import Any

import torch
from torch import Tensor

from maquette.core.random import StepRandom
from maquette.core.schedule import Schedule
from maquette.models.geometry.gaussian_densify import due, weighted_choice
from maquette.models.geometry.gaussian_rows import GaussianRows, Rows
from maquette.ops.gaussians import covariances, relocated

SHARPNESS = 100.0
"""Of the step between opaque Gaussians, which stay, and transparent ones, which wander (eq. 8)."""
TRANSPARENT = 0.995
"""Transparency in the middle of that step."""


class MarkovChain:
    """The strategy `mcmc`.

    Its noise is scaled by the learning rate of positions. What the paper adds to the loss, penalties on
    opacities and scales, are `loss.lambda_opacity` and `loss.lambda_scales` of the system.
    """

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg
        self.dead_below = Schedule.parse(cfg.min_opac_prune, key="system.geometry.min_opac_prune")
        self.rate = Schedule.parse(cfg.position_lr, "exp", "system.geometry.position_lr")

    def observes(self, step: int) -> bool:
        """It needs no gradients of the screen."""
        return False

    @torch.no_grad()
    def step(self, cloud: GaussianRows, epoch: int, step: int, rng: StepRandom) -> Rows | None:
        """Relocate and grow when it is due, then add noise; the change of the rows, if there is one."""
        cfg, change = self.cfg, None
        if due(step, cfg.densify_from_iter, cfg.densify_until_iter, cfg.densification_interval):
            change = self.relocate(cloud, epoch, step, rng)
            grown = self.grow(cloud, rng)
            change = grown if change is None else change.then(grown)
        self.perturb(cloud, self.rate.at(step, epoch), rng)
        return change

    def relocate(self, cloud: GaussianRows, epoch: int, step: int, rng: StepRandom) -> Rows | None:
        """Move every dead Gaussian to a living one, drawn by opacity, and share that one's light."""
        opacity = torch.sigmoid(cloud._opacity[:, 0])
        dead = opacity <= self.dead_below.at(step, epoch)
        if self.cfg.prune_outside:
            dead |= cloud._xyz.abs().amax(dim=-1) > self.cfg.radius
        if not bool(dead.any()) or bool(dead.all()):
            return None
        draws = rng.uniform("gaussians/relocate", int(dead.sum()))[0].to(opacity)
        picked = weighted_choice(opacity.masked_fill(dead, 0.0), draws)
        source = torch.arange(cloud.n, device=picked.device)
        source[dead] = picked
        return self._copy(cloud, picked, source)

    def grow(self, cloud: GaussianRows, rng: StepRandom) -> Rows | None:
        """Add copies of Gaussians, drawn in proportion to their opacity, until `max_num` is reached."""
        growth = self.cfg.mcmc_growth
        wanted = min(self.cfg.max_num, max(int((1.0 + growth) * cloud.n), cloud.n + (growth > 0.0))) - cloud.n
        if wanted <= 0:
            return None
        draws = rng.uniform("gaussians/grow", wanted)[0].to(cloud._xyz)
        picked = weighted_choice(torch.sigmoid(cloud._opacity[:, 0]), draws)
        return self._copy(cloud, picked, torch.cat([torch.arange(cloud.n, device=picked.device), picked]))

    def perturb(self, cloud: GaussianRows, rate: float, rng: StepRandom) -> None:
        """Noise with the shape of each Gaussian, the more the less it is seen (eq. 8)."""
        if self.cfg.mcmc_noise_lr == 0.0:
            return
        draws = rng.normal("gaussians/noise", cloud.n, 3)[0].to(cloud._xyz)
        transparency = 1.0 - torch.sigmoid(cloud._opacity)
        amount = torch.sigmoid(SHARPNESS * (transparency - TRANSPARENT)) * rate * self.cfg.mcmc_noise_lr
        shapes = covariances(cloud._rotation, cloud.scales)
        cloud._xyz += amount * (shapes @ draws[..., None])[..., 0]

    def _copy(self, cloud: GaussianRows, picked: Tensor, source: Tensor) -> Rows:
        """Give the picked rows their share of what they were, then take the rows `source`."""
        copies = torch.bincount(picked, minlength=cloud.n) + 1
        shared = copies > 1
        opacity, scales = relocated(
            torch.sigmoid(cloud._opacity[shared, 0]), cloud.scales[shared], copies[shared]
        )
        least = self.dead_below.values[-1]
        cloud._opacity[shared, 0] = torch.logit(opacity.clamp(min=least), eps=1e-6)
        cloud._scaling[shared] = scales.log()
        rows = Rows(source, shared[source])
        cloud.take(rows)
        return rows
