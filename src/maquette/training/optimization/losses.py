"""The names of losses, so that the weight of one that does not exist is not quietly without effect."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from maquette.core.errors import UnknownKeyError
from maquette.core.log import get_logger

log = get_logger(__name__)

PREFIX = "lambda_"

ECOSYSTEM_LOSSES = frozenset(
    """3d_normal_smooth 3d_sd 3d_sds D G convex csd depth depth_rel depth_tv_loss edge eikonal emptiness ism
    kl l1 l2 laplacian_smoothness lora lpips mask normal normal_consistency normal_smooth normal_smoothness_2d
    opacity opaque orient p position rgb rgb_grad scales sd sdi sds sds_img shape sparsity tv_loss vsd vsd_img
    z_variance""".split()
)
"""Losses of the recipes of this ecosystem. Many recipes give weights for losses that their system never has,
which is accepted."""


def check_loss_names(given: Collection[str], used: Collection[str], declared: Collection[str]) -> None:
    """Find weights that nothing uses.

    Args:
        given: the ``lambda_NAME`` of the recipe.
        used: names of the losses that the first step has set.
        declared: names that the system may set in other steps.

    Raises:
        UnknownKeyError: a weight is of no loss, and its name is close to that of a loss without a weight.
    """
    known = {*used, *declared, *ECOSYSTEM_LOSSES}
    names = [key.removeprefix(PREFIX) for key in given]
    for name in names:
        if name in known:
            continue
        near = [one for one in difflib.get_close_matches(name, known, n=3, cutoff=0.75) if one not in names]
        if near:
            raise UnknownKeyError(f"system.loss.{PREFIX}{name}", [f"{PREFIX}{one}" for one in near])
        log.warning("system.loss.%s%s has no effect so far: no loss of this name was set", PREFIX, name)
