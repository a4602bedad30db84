"""Activations as pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maquette.core.errors import UserError
from maquette.training.inspect.hooks import capture_features

CHANNELS = 64
"""Channels that a picture shows at most."""


def activation_picture(
    features: Float[Tensor, "B C H W"], item: int = 0, channels: int = CHANNELS
) -> Float[Tensor, "rows columns 3"]:
    """The channels of one item side by side in a nearly square grid, each scaled to 0..1 of its own.

    A constant channel is grey 0; a border of one pixel lies between two channels.
    """
    planes = features[item, :channels].detach().float().nan_to_num().cpu()
    low, high = planes.amin(dim=(1, 2), keepdim=True), planes.amax(dim=(1, 2), keepdim=True)
    scaled = (planes - low) / (high - low).clamp_min(torch.finfo(planes.dtype).tiny)
    columns = math.ceil(math.sqrt(len(planes)))
    rows = math.ceil(len(planes) / columns)
    _, height, width = planes.shape
    sheet = torch.zeros(rows * (height + 1) - 1, columns * (width + 1) - 1)
    for i, plane in enumerate(scaled):
        top, left = i // columns * (height + 1), i % columns * (width + 1)
        sheet[top : top + height, left : left + width] = plane
    return sheet[..., None].expand(-1, -1, 3)


@torch.no_grad()
def activation_pictures(model: nn.Module, paths: Sequence[str], *inputs: Tensor) -> dict[str, Tensor]:
    """Run ``model`` on ``inputs`` and draw what modules give: pictures (rows, columns, 3) by path.

    Raises:
        ConfigError: there is no such module.
        UserError: a module gives no pictures (B, C, H, W), or was not called.
    """
    with capture_features(model, paths) as seen:
        model(*inputs)
    for path in paths:
        found = seen.get(path)
        if not isinstance(found, Tensor) or found.ndim != 4:
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UserError(f"The module {path} gives no features (B, C, H, W).", [f"got: {got}"])
    return {path: activation_picture(seen[path]) for path in paths}
