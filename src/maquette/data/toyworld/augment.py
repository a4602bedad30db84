"""Small harm to pictures, so that a network trained on clean renders also reads generated ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from maquette.core.random import StepRandom

BLUR_SHARE = 0.5
NOISE = 0.04
GAIN = (0.85, 1.15)
SHIFT_PIXELS = 3


def degrade(images: Float[Tensor, "B 3 H W"], rng: StepRandom) -> Float[Tensor, "B 3 H W"]:
    """Random shift, gain, blur and noise, a draw for each picture; in and out in [0, 1]."""
    images = _shift(images, rng)
    gain = rng.uniform("augment/gain", 1, 1, 1, low=GAIN[0], high=GAIN[1])
    amount = rng.uniform("augment/blur", 1, 1, 1)
    amount = torch.where(amount < BLUR_SHARE, amount / BLUR_SHARE, torch.zeros_like(amount))
    noise = rng.normal("augment/noise", *images.shape[1:]) * rng.uniform("augment/level", 1, 1, 1, high=NOISE)
    return (torch.lerp(images, _blur(images), amount) * gain + noise).clamp(0.0, 1.0)


def _blur(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    return F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def _shift(images: Float[Tensor, "B 3 H W"], rng: StepRandom) -> Float[Tensor, "B 3 H W"]:
    steps = rng.integers("augment/shift", -SHIFT_PIXELS, SHIFT_PIXELS, 2).tolist()
    padded = F.pad(images, (SHIFT_PIXELS,) * 4, mode="replicate")
    height, width = images.shape[-2:]
    rows = [
        one[:, SHIFT_PIXELS + dy : SHIFT_PIXELS + dy + height, SHIFT_PIXELS + dx : SHIFT_PIXELS + dx + width]
        for one, (dy, dx) in zip(padded, steps, strict=True)
    ]
    return torch.stack(rows)
