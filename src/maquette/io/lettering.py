"""Words drawn on a picture."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from maquette.io.images import quantized


def with_text(image: Float[Tensor, "H W 3"], text: str) -> Float[Tensor, "H W 3"]:
    """The picture with `text` in its upper left corner, white on black; values in [0, 1], 8 bits deep."""
    canvas = Image.fromarray(quantized(image))
    ImageDraw.Draw(canvas).text((2, 1), text, fill=(255, 255, 255), stroke_width=1, stroke_fill=(0, 0, 0))
    return torch.from_numpy(np.asarray(canvas).astype(np.float32) / 255.0)
