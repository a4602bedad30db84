"""Emission and absorption along rays: the renderer of a NeRF."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.core.registry import register
from maquette.kernels.occupancy import RaySamples
from maquette.models.geometry.base import GeometryOutput
from maquette.models.renderers.estimators import importance_views
from maquette.models.renderers.proposal_network import ProposalConfig, ProposalNetwork, learns_at
from maquette.models.renderers.volume import RayBatch, VolumeRenderer, check_field
from maquette.ops.rays import intersect_box
from maquette.ops.volume import stratified_edges


@register("nerf-volume-renderer")
class NeRFVolumeRenderer(VolumeRenderer):
    """Draws a field of density (Mildenhall et al. 2020, NeRF)."""

    estimators: ClassVar[tuple[str, ...]] = (*VolumeRenderer.estimators, "proposal")

    @dataclass(kw_only=True)
    class Config(VolumeRenderer.Config):
        """Options."""

        proposal_network_config: dict[str, Any] | None = None
        """The network of the estimator `proposal`: encoding_config and network_config."""
        prop_optimizer_config: dict[str, Any] | None = None
        """What trains it: name, args."""
        prop_scheduler_config: dict[str, Any] | None = None
        """How its learning rate changes: name, args."""
        num_samples_per_ray_proposal: int = 64
        """Intervals in which it proposes."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.num_samples_per_ray_proposal < 1:
                raise ConfigError(
                    "system.renderer.num_samples_per_ray_proposal",
                    self.num_samples_per_ray_proposal,
                    "an integer above 0",
                )

    def configure(self, *args: Any, **kwargs: Any) -> None:
        """Keep the references and make what chooses samples."""
        super().configure(*args, **kwargs)
        cfg = self.cfg
        check_field(self.geometry, "forward_density", "a geometry with a density, such as implicit-volume")
        if cfg.estimator == "proposal":
            config = ProposalConfig(
                cfg.proposal_network_config, cfg.prop_optimizer_config, cfg.prop_scheduler_config
            )
            self.prop_net = ProposalNetwork(self.bbox, config)
        self._step = 0

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        """Note the step, and that the grid is due."""
        super().update_step(epoch, global_step, on_load_weights)
        self._step = global_step

    def update_step_end(self, epoch: int, global_step: int) -> None:
        """Move the proposal with the optimizer: once a step, however many batches that has."""
        if self.cfg.estimator == "proposal" and global_step > self._step:
            self.prop_net.step()

    def sample(self, rays: RayBatch) -> RaySamples:
        """Where the rays are looked at."""
        cfg = self.cfg
        if cfg.estimator != "proposal":
            return super().sample(rays)
        return importance_views(
            rays.origins,
            rays.directions,
            self.bbox,
            self.prop_net.density,
            cfg.num_samples_per_ray_proposal,
            cfg.num_samples_per_ray,
            cfg.near_plane,
            cfg.far_plane,
            self.jitter(rays),
            keep_coarse=False,
        )

    def render_rays(self, rays: RayBatch) -> dict[str, Any]:
        """Values of rays and samples; the proposal learns from them, and its loss is `proposal_loss`."""
        drawn = super().render_rays(rays)
        if self.training and self.cfg.estimator == "proposal" and learns_at(self._step):
            drawn["proposal_loss"] = self._teach(rays, drawn)
        return drawn

    def _teach(self, rays: RayBatch, drawn: dict[str, Any]) -> float:
        """What the fine samples saw, to the proposal; every ray that was looked at has as many samples."""
        n = self.cfg.num_samples_per_ray
        hit = drawn["ray_indices"].reshape(-1, n)[:, 0]
        middle, length = (drawn[name].reshape(-1, n) for name in ("t_points", "t_intervals"))
        edges = torch.cat([middle - 0.5 * length, (middle + 0.5 * length)[:, -1:]], dim=-1)
        origins, directions = (one[hit] for one in rays.flat)
        entry, leave = intersect_box(origins, directions, self.bbox)
        entry, leave = entry.clamp(min=self.cfg.near_plane), leave.clamp(max=self.cfg.far_plane)
        coarse = stratified_edges(entry, leave, self.cfg.num_samples_per_ray_proposal)
        return self.prop_net.learn(origins, directions, coarse, edges, drawn["weights"].reshape(-1, n))

    def absorption(
        self, samples: RaySamples, geometry: GeometryOutput, directions: Float[Tensor, "S 3"]
    ) -> Float[Tensor, "S"]:
        """The density."""
        assert geometry.density is not None
        return geometry.density.reshape(-1)

    def rough_density(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 1"]:
        """The density."""
        return self.geometry.forward_density(points)
