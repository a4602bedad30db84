"""Schedulers by a short name or by their class in diffusers."""

from __future__ import annotations

import importlib
from typing import Any, Final

from maquette.core.errors import ConfigError

SCHEDULERS: Final[dict[str, str]] = {
    "DDPM": "DDPMScheduler",
    "DDIM": "DDIMScheduler",
    "PNDM": "PNDMScheduler",
    "Euler": "EulerDiscreteScheduler",
    "DPM++": "DPMSolverMultistepScheduler",
    "LCM": "LCMScheduler",
}
"""Short names, as papers and programs write them; upper and lower case are the same."""

_FOLDED: Final = {name.lower(): kind for name, kind in SCHEDULERS.items()}


def other_scheduler(current: Any, name: str) -> Any:
    """The scheduler called `name`, with the noise levels and the prediction type of another.

    Raises:
        ConfigError: there is no such scheduler, or it has no use for a model like this.
    """
    kind = getattr(importlib.import_module("diffusers"), _FOLDED.get(name.lower(), name), None)
    if kind is None or not hasattr(kind, "from_config") or not hasattr(kind, "set_timesteps"):
        raise ConfigError(
            "scheduler",
            name,
            f"{', '.join(SCHEDULERS)}, or a scheduler class of diffusers, such as DDIMScheduler",
        )
    found = kind.from_config(current.config)
    if hasattr(current, "alphas_cumprod") != hasattr(found, "alphas_cumprod"):
        raise ConfigError("scheduler", name, f"one for the same kind of model as {type(current).__name__}")
    return found
