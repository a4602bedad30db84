"""How `fit.py` optimises each representation: modules of the registry, Adam, the squared error of colors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from fit_scene import Scene, Views
from torch import Tensor

from maquette.core.random import RandomStreams, StepRandom
from maquette.core.registry import find
from maquette.models.networks.init import init_parameters
from maquette.ops import losses
from maquette.systems.gaussian_splatting import follow_rows

STREAMS = RandomStreams(0)
RADIUS = 0.95
RAYS = 4096
GRID = {
    "otype": "HashGrid", "n_levels": 10, "n_features_per_level": 2, "log2_hashmap_size": 17,
    "base_resolution": 8, "per_level_scale": 1.45,
}  # fmt: skip
NETWORK = {
    "otype": "VanillaMLP", "activation": "ReLU", "output_activation": "none", "n_neurons": 32,
    "n_hidden_layers": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Targets:
    """What has to be reached; None where nothing is asked."""

    psnr: float | None
    """Decibels on views that were not fitted."""
    chamfer: float | None
    """Part of the diagonal."""


class Recipe:
    """One representation: its parts, its optimizer, its step."""

    name = ""
    steps = 1000
    learning_rate = 0.01
    last_rate = 0.1
    """What is left of the learning rate at the end."""
    targets = Targets(None, None)

    def __init__(self, scene: Scene) -> None:
        self.geometry, self.material, self.renderer = self.parts(scene)
        for name, part in (
            ("geometry", self.geometry),
            ("material", self.material),
            ("renderer", self.renderer),
        ):
            init_parameters(part, 0, name)
        self.optimizer = self.make_optimizer()
        self.scheduler = torch.optim.lr_scheduler.ExponentialLR(
            self.optimizer, self.last_rate ** (1.0 / self.steps)
        )

    def parts(self, scene: Scene) -> tuple[Any, Any, Any]:
        """Geometry, material and renderer."""
        raise NotImplementedError

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Adam over everything that learns."""
        learned = [p for part in (self.geometry, self.renderer) for p in part.parameters() if p.requires_grad]
        return torch.optim.Adam(learned, lr=self.learning_rate, betas=(0.9, 0.99), eps=1e-15)

    def step(self, step: int, views: Views) -> float:
        """Optimise once; the mean squared error of the colors."""
        for part in (self.geometry, self.material, self.renderer):
            part.do_update_step(0, step)
        error, more = self.loss(step, views, STREAMS.at(step, [0]))
        self.optimizer.zero_grad(set_to_none=True)
        (error + more).backward()
        self.optimizer.step()
        self.scheduler.step()
        return float(error.detach())

    def loss(self, step: int, views: Views, rng: StepRandom) -> tuple[Tensor, Tensor | float]:
        """The squared error, and what else counts."""
        out, truth = self.drawn(views, rng)
        return (out["comp_rgb"] - truth).square().mean(), 0.0

    def drawn(self, views: Views, rng: StepRandom) -> tuple[Any, Tensor]:
        """A picture of one view before a random color, and what it should be."""
        seen = views.some(rng.integers("view", 0, len(views) - 1).tolist())
        color = rng.uniform("color", 3)
        out = self.renderer(**camera_arguments(seen), bg_color=color, rng=rng)
        return out, seen.before(color[0].tolist())

    def view(self, views: Views, color: Sequence[float]) -> Tensor:
        """Pictures (B, H, W, 3) as evaluation makes them."""
        background = torch.tensor([color]).expand(len(views), 3)
        return self.renderer(**camera_arguments(views), bg_color=background)["comp_rgb"]

    def evaluate(self) -> None:
        """No more training."""
        for part in (self.geometry, self.material, self.renderer):
            part.eval()


class Field(Recipe):
    """What is drawn along rays: random rays of all views are fitted."""

    def drawn(self, views: Views, rng: StepRandom) -> tuple[Any, Tensor]:
        """Colors of random rays, each before its own color."""
        cameras = views.cameras
        ray = rng.integers("ray", 0, views.opacity.numel() - 1, RAYS)[0]
        color = rng.uniform("color", RAYS, 1, 3)
        out = self.renderer(
            rays_o=cameras.rays_o.reshape(-1, 3)[ray][None, :, None],
            rays_d=cameras.rays_d.reshape(-1, 3)[ray][None, :, None],
            light_positions=cameras.light_positions[:1],
            bg_color=color,
            rng=rng,
        )
        rgb, opacity = views.rgb.reshape(-1, 3)[ray], views.opacity.reshape(-1, 1)[ray]
        return out, (rgb[:, None] + (1.0 - opacity[:, None]) * color[0])[None]


class Volume(Field):
    """A radiance field."""

    name = "volume"
    steps = 1000
    targets = Targets(28.0, None)

    def parts(self, scene: Scene) -> tuple[Any, Any, Any]:
        """A hash grid."""
        geometry = find("implicit-volume", "geometry")(
            {
                "radius": RADIUS, "normal_type": None, "density_activation": "softplus",
                "density_bias": "blob_magic3d", "density_blob_scale": 10.0, "isosurface_threshold": "auto",
                "pos_encoding_config": GRID, "mlp_network_config": NETWORK,
            }
        )  # fmt: skip
        return assembled(geometry, "nerf-volume-renderer", {"radius": RADIUS, "num_samples_per_ray": 128})


class SignedDistance(Field):
    """A surface as a signed distance, whose slope is kept at one."""

    name = "sdf"
    steps = 1000
    targets = Targets(28.0, 0.01)

    def parts(self, scene: Scene) -> tuple[Any, Any, Any]:
        """A hash grid, drawn by the rule of VolSDF."""
        geometry = find("implicit-sdf", "geometry")(
            {
                "radius": RADIUS, "normal_type": "finite_difference", "sdf_bias": "sphere",
                "sdf_bias_params": 0.5,
                "isosurface_method": "mc", "isosurface_remove_outliers": True,
                "pos_encoding_config": GRID, "mlp_network_config": NETWORK,
            }
        )  # fmt: skip
        settings = {"radius": RADIUS, "num_samples_per_ray": 128, "use_volsdf": True}
        settings["return_sdf_grad"] = False  # its slope is asked for at other points
        return assembled(geometry, "neus-volume-renderer", settings)

    def loss(self, step: int, views: Views, rng: StepRandom) -> tuple[Tensor, Tensor | float]:
        """The squared error, and the slope at random points of the box."""
        error, _ = super().loss(step, views, rng)
        points = rng.uniform("eikonal", RAYS, 3, low=-RADIUS, high=RADIUS)[0]
        slope = self.geometry(points, output_normal=True).extras["sdf_grad"]
        return error, 0.01 * losses.eikonal(slope)


class Gaussians(Recipe):
    """A cloud of Gaussians, which grows where the pictures ask for it."""

    name = "gaussians"
    steps = 1500
    targets = Targets(30.0, None)

    def parts(self, scene: Scene) -> tuple[Any, Any, Any]:
        """A ball of Gaussians."""
        geometry = find("gaussian-splatting", "geometry")(
            {
                "radius": RADIUS, "init_num_pts": 3000, "pc_init_radius": 0.8, "max_num": 8000,
                "position_lr": [0, 0.005, 0.0005, self.steps], "feature_lr": 0.02, "scaling_lr": 0.01,
                "rotation_lr": 0.01, "densify_grad_threshold": 0.0002, "densify_from_iter": 200,
                "densification_interval": 100, "densify_until_iter": self.steps // 2, "prune_from_iter": 200,
                "prune_interval": 100, "prune_until_iter": self.steps, "split_thresh": 0.05,
            }
        )  # fmt: skip
        return assembled(geometry, "diff-gaussian-rasterizer-background", {"radius": RADIUS})

    def make_optimizer(self) -> torch.optim.Optimizer:
        """A group for each parameter, named after it."""
        groups = [{"params": [value], "name": name} for name, value in self.geometry.row_parameters.items()]
        return torch.optim.Adam(groups, lr=self.learning_rate, eps=1e-15)

    def step(self, step: int, views: Views) -> float:
        """Optimise once, then let the Gaussians change."""
        rng = STREAMS.at(step, [0])
        rates = self.geometry.learning_rates(0, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rates[group["name"]]
        out, truth = self.drawn(views, rng)
        error = (out["comp_rgb"] - truth).square().mean()
        self.optimizer.zero_grad(set_to_none=True)
        error.backward()
        if self.geometry.observes(step):
            self.geometry.observe(out["viewspace_points"].grad, out["radii"], *truth.shape[1:3])
        self.optimizer.step()
        change = self.geometry.evolve(0, step, rng)
        if change is not None:
            for parameter in self.geometry.row_parameters.values():
                follow_rows(self.optimizer, parameter, change.source, change.fresh)
        return float(error.detach())


class Tetrahedra(Recipe):
    """A signed distance on a tetrahedral grid, drawn as the mesh that it cuts out."""

    name = "tetrahedra"
    steps = 800
    targets = Targets(None, 0.01)

    def parts(self, scene: Scene) -> tuple[Any, Any, Any]:
        """A ball to begin with."""
        geometry = find("tetrahedra-sdf-grid", "geometry")(
            {
                "radius": RADIUS, "isosurface_resolution": 64, "shape_init": "sphere",
                "shape_init_params": 0.6,
                "pos_encoding_config": GRID, "mlp_network_config": NETWORK,
            }
        )  # fmt: skip
        return assembled(geometry, "mesh-rasterizer", {"radius": RADIUS})

    def loss(self, step: int, views: Views, rng: StepRandom) -> tuple[Tensor, Tensor | float]:
        """The squared error; creases; and, ever less, changes of sign where no surface is seen."""
        out, truth = self.drawn(views, rng)
        mesh = out["mesh"]
        hidden = 0.001 + 0.02 * (1.0 - step / self.steps)
        more = 0.01 * losses.normal_consistency(mesh) + hidden * mesh.extras["sdf_regularity"]
        return (out["comp_rgb"] - truth).square().mean(), more


class CustomMesh(Recipe):
    """The toy's own shape; its colors are learned."""

    name = "custom-mesh"
    steps = 600
    targets = Targets(30.0, None)

    def parts(self, scene: Scene) -> tuple[Any, Any, Any]:
        """The shape, handed over."""
        geometry = find("custom-mesh", "geometry").create_from(
            Given(scene), {"radius": RADIUS, "pos_encoding_config": GRID, "mlp_network_config": NETWORK}
        )
        return assembled(geometry, "mesh-rasterizer", {"radius": RADIUS})


class Given:
    """Something that already is a mesh."""

    def __init__(self, scene: Scene) -> None:
        self.mesh = scene.mesh

    def isosurface(self) -> Any:
        """The mesh."""
        return self.mesh


def assembled(geometry: Any, renderer: str, settings: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The geometry with colors as they are, drawn before whatever color is asked for."""
    activation = "none" if renderer.startswith("diff-gaussian") else "sigmoid"
    material = find("no-material", "material")({"n_output_dims": 3, "color_activation": activation})
    background = find("solid-color-background", "background")({})
    drawing = find(renderer, "renderer")(
        settings, geometry=geometry, material=material, background=background
    )
    return geometry, material, drawing


def camera_arguments(views: Views) -> dict[str, Any]:
    """What a renderer is called with."""
    cameras = views.cameras
    names = ("rays_o", "rays_d", "mvp_mtx", "proj_mtx", "c2w", "camera_positions", "light_positions")
    return {name: getattr(cameras, name) for name in names} | {
        "height": cameras.height,
        "width": cameras.width,
    }


RECIPES: dict[str, Callable[[Scene], Recipe]] = {
    recipe.name: recipe for recipe in (Volume, SignedDistance, Gaussians, Tetrahedra, CustomMesh)
}
