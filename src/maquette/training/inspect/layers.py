"""The last layer of a model: another number of outputs, or none of it."""

from __future__ import annotations

import torch
from torch import nn

from maquette.core.errors import UserError

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def last_layer(model: nn.Module) -> tuple[str, nn.Module]:
    """Path of the last linear or convolutional layer, in the order in which modules were added, and itself.

    Raises:
        UserError: there is none.
    """
    found = [(name, one) for name, one in model.named_modules() if isinstance(one, LAYERS)]
    if not found or not found[-1][0]:
        raise UserError(f"{type(model).__name__} contains no linear or convolutional layer that can change.")
    return found[-1]


def change_last_layer(
    model: nn.Module, outputs: int, path: str | None = None, generator: torch.Generator | None = None
) -> nn.Module:
    """Put a fresh layer with another number of outputs in the place of the last one, in place.

    Everything else about the layer stays: inputs, kernel, bias or none, device, precision.

    Args:
        model: what is changed.
        outputs: features or channels of the new layer.
        path: dotted path of the layer; without it, the last one.
        generator: draws the weights (He et al. 2015, as PyTorch's layers do); without it, the global one.

    Returns:
        The new layer.

    Raises:
        UserError: there is no such layer.
    """
    if outputs < 1:
        raise UserError(f"A layer has at least one output, not {outputs}.")
    path, old = last_layer(model) if path is None else (path, _layer_at(model, path))
    new = _like(old, outputs)
    _draw(new, generator)
    _set(model, path, new.to(device=old.weight.device, dtype=old.weight.dtype))
    return new


def remove_last_layer(model: nn.Module, path: str | None = None) -> nn.Module:
    """Put an identity in the place of the last layer, so that the model gives its features, in place.

    Returns:
        The layer that was there.

    Raises:
        UserError: there is no such layer.
    """
    path, old = last_layer(model) if path is None else (path, _layer_at(model, path))
    _set(model, path, nn.Identity())
    return old


def _layer_at(model: nn.Module, path: str) -> nn.Module:
    found = dict(model.named_modules()).get(path)
    if found is None or found is model or not isinstance(found, LAYERS):
        names = [name for name, one in model.named_modules() if isinstance(one, LAYERS)]
        raise UserError(f"There is no layer at {path}.", [f"layers: {', '.join(names) or 'none'}"])
    return found


def _like(old: nn.Module, outputs: int) -> nn.Module:
    bias = old.bias is not None
    if isinstance(old, nn.Linear):
        return nn.Linear(old.in_features, outputs, bias)
    assert isinstance(old, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    return type(old)(
        old.in_channels, outputs, old.kernel_size, old.stride, old.padding, old.dilation,
        old.groups if outputs % old.groups == 0 else 1, bias, old.padding_mode,
    )  # fmt: skip


@torch.no_grad()
def _draw(layer: nn.Module, generator: torch.Generator | None) -> None:
    if generator is None:
        return
    nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)
    if layer.bias is not None:
        bound = layer.weight[0].numel() ** -0.5
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


def _set(model: nn.Module, path: str, layer: nn.Module) -> None:
    owner, _, name = path.rpartition(".")
    setattr(model.get_submodule(owner), name, layer)
