"""Fitting a field to a shape or to another field, with draws that depend on the seed alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from maquette.core.random import named_generator

log = logging.getLogger(__name__)

STEPS = 400
POINTS = 4096
"""Of a step."""
POOL = 2**16
"""Points whose target is known."""
RATES = (1e-2, 1e-4)
"""Learning rate at the first and the last step."""
BETAS = (0.9, 0.99)
SILENCE = 10.0
"""Seconds between two messages of a fit."""
NEAR = 0.05
"""Standard deviation of the points around a surface, in radii of the box."""

Target = Callable[[Tensor], Tensor]


def fit(
    parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
    loss: Callable[[torch.Generator], Tensor],
    seed: int,
    steps: int = STEPS,
    rates: tuple[float, float] = RATES,
) -> None:
    """Minimise a loss that draws its points from the generator it is given (Adam, falling rate).

    Works also where gradients are switched off around it. One that takes long tells how far it is.

    Args:
        parameters: what is fitted, or groups of it as optimizers take them.
        loss: of one step.
        seed: of the draws.
        steps: how many.
        rates: learning rate at the first and the last step; a rate of a group falls by as much.
    """
    generator = named_generator(seed, "field fit")
    with torch.inference_mode(False), torch.enable_grad():
        optimizer = torch.optim.Adam(list(parameters), lr=rates[0], betas=BETAS, eps=1e-15, fused=True)
        decay = (rates[1] / rates[0]) ** (1.0 / steps)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, decay)
        told = time.monotonic()
        for step in range(steps):
            optimizer.zero_grad()
            loss(generator).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()
            if time.monotonic() - told >= SILENCE:
                log.info("fitting: %d of %d steps", step + 1, steps)
                told = time.monotonic()
        optimizer.zero_grad()


def fit_signed_distance(
    geometry: Any,
    target: Target,
    seed: int,
    surface: Float[Tensor, "P 3"] | None = None,
    features: Float[Tensor, "P F"] | None = None,
) -> None:
    """Make `forward_sdf` of a geometry that of `target`, and its features near `surface` those given there.

    The points are anywhere in the box, and half of them, where `surface` is given, near one of its points;
    what they should have is computed once, for all steps.
    """
    radius, box, half = float(geometry.cfg.radius), geometry.bbox, POOL // 2
    drawn = named_generator(seed, "field fit points")
    points, shown = points_in_box(POOL, radius, drawn).to(box), None
    if surface is not None:
        points[:half], chosen = points_near(surface, half, radius, drawn)
        shown = None if features is None else features[chosen]
    with torch.no_grad():
        distance = target(points)

    def loss(generator: torch.Generator) -> Tensor:
        rows = torch.randint(POOL, (POINTS,), generator=generator).to(box.device)
        error = (geometry.forward_sdf(points[rows]) - distance[rows]).square().mean()
        if shown is None:
            return error
        near = rows[rows < half]
        return error + (geometry.export(points[near])["features"] - shown[near]).square().mean()

    fit(geometry.parameters(), loss, seed)


def points_in_box(n: int, radius: float, generator: torch.Generator) -> Float[Tensor, "N 3"]:
    """Uniform in the cube of half-width `radius`; on the CPU."""
    return (torch.rand(n, 3, generator=generator) * 2.0 - 1.0) * radius


def points_near(
    anchors: Float[Tensor, "P 3"], n: int, radius: float, generator: torch.Generator
) -> tuple[Float[Tensor, "N 3"], Int[Tensor, " N"]]:
    """n points within the cube, each around one of the anchors (`NEAR`), and which one."""
    chosen = torch.randint(len(anchors), (n,), generator=generator).to(anchors.device)
    offsets = NEAR * radius * torch.randn(n, 3, generator=generator).to(anchors)
    return (anchors[chosen] + offsets).clamp(-radius, radius), chosen
