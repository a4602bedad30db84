"""Weights that fit in part, and a report of what did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from maquette.core.errors import UserError


@dataclass(frozen=True)
class LoadReport:
    """What became of the weights of a state, by name."""

    taken: Sequence[str]
    """Loaded."""
    missing: Sequence[str]
    """The model has them, the state has not; they keep their values."""
    unknown: Sequence[str]
    """The state has them, the model has not."""
    misfits: Sequence[str]
    """Both have them, of different shapes; they keep their values. Each as ``name: stored -> own shape``."""
    ignored: Sequence[str]
    """Left out because it was asked for."""

    def __str__(self) -> str:
        counts = [f"{len(getattr(self, name))} {name}" for name in self.__dataclass_fields__]
        return "\n".join([", ".join(counts), *(f"  does not fit: {one}" for one in self.misfits)])


@torch.no_grad()
def load_partially(
    model: nn.Module, state: Mapping[str, Tensor], *, prefix: str = "", ignore: Sequence[str] = ()
) -> LoadReport:
    """Take those weights whose names and shapes agree.

    Args:
        model: takes them, in place.
        state: weights by name.
        prefix: what names in the state begin with, and those of the model do not, such as ``geometry.``;
            everything else in the state is not looked at.
        ignore: dotted paths below which nothing is taken.

    Raises:
        UserError: nothing agrees.
    """
    stored = {name.removeprefix(prefix): one for name, one in state.items() if name.startswith(prefix)}
    own = model.state_dict()
    left_out = tuple(f"{name}." for name in ignore)
    ignored = [name for name in stored if f"{name}.".startswith(left_out)] if left_out else []
    known = [name for name in stored if name in own and name not in ignored]
    taken = [name for name in known if stored[name].shape == own[name].shape]
    if not taken:
        raise UserError(
            "No weight fits this model.",
            [f"the state has: {', '.join(list(state)[:5])}", f"the model has: {', '.join(list(own)[:5])}"],
            "give the prefix that the names of the state begin with",
        )
    model.load_state_dict({name: stored[name] for name in taken}, strict=False)
    return LoadReport(
        taken=taken,
        missing=[name for name in own if name not in stored],
        unknown=[name for name in stored if name not in own and name not in ignored],
        misfits=[_misfit(name, stored[name], own[name]) for name in known if name not in taken],
        ignored=ignored,
    )


def _misfit(name: str, stored: Tensor, own: Tensor) -> str:
    return f"{name}: {tuple(stored.shape)} -> {tuple(own.shape)}"
