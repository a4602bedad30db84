"""Low-rank adapters of UNets and text encoders (LoRA, Hu et al. 2021), by PEFT, in the files of diffusers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from torch import nn

from maquette.core.errors import MissingFileError, ModelUnavailableError, UserError
from maquette.core.paths import atomic_path

RANK: Final = 4
"""Rank of an adapter unless asked otherwise."""

TARGETS: Final = ("to_q", "to_k", "to_v", "to_out.0")
"""The layers of each attention that an adapter changes."""

TEXT_TARGETS: Final = ("q_proj", "k_proj", "v_proj", "out_proj")
"""The same of a text encoder."""

PREFIX: Final = "unet"
"""First part of the names in a file, where diffusers keeps the adapters of several models."""

TEXT_PREFIX: Final = "text_encoder"
"""The same of a text encoder."""

ADAPTER_FILE: Final = "pytorch_lora_weights.safetensors"
"""The name by which diffusers finds an adapter in a folder."""


@dataclass(frozen=True, kw_only=True)
class LoRAFile:
    """An adapter to load."""

    path: str
    """A file, a folder with `pytorch_lora_weights.safetensors`, or an id of the hub."""
    scale: float = 1.0
    """How much of it is added."""

    @classmethod
    def parse(cls, entries: Sequence[Any], key: str) -> list[LoRAFile]:
        """Entries of a recipe: a path, or a mapping with `path` and `scale`.

        Raises:
            UserError: an entry is something else.
        """
        parsed = []
        for number, entry in enumerate(entries):
            if isinstance(entry, str):
                parsed.append(cls(path=entry))
            elif isinstance(entry, Mapping) and "path" in entry and set(entry) <= {"path", "scale"}:
                parsed.append(cls(path=str(entry["path"]), scale=float(entry.get("scale", 1.0))))
            else:
                raise UserError(f"{key}[{number}] is no adapter: {entry!r}.", hint="{path: FILE, scale: 1.0}")
        return parsed


def add_adapter(
    unet: nn.Module,
    name: str = "default",
    *,
    rank: int = RANK,
    targets: Sequence[str] = TARGETS,
    generator: torch.Generator | None = None,
) -> list[nn.Parameter]:
    """Put a fresh adapter beside the attention layers and freeze everything else; gives what trains.

    It changes nothing yet: the second factor of each pair starts at zero. A `generator` draws the first ones.
    A text encoder of transformers works as well, with `targets=TEXT_TARGETS`.

    Raises:
        UserError: the model has no layers of these names.
    """
    from peft import LoraConfig

    unet.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=list(targets))
    try:
        unet.add_adapter(config, adapter_name=name)  # type: ignore[operator]
    except ValueError as err:
        raise UserError(
            f"No adapter can be put on {', '.join(targets)} of the {type(unet).__name__}.",
            [str(err).splitlines()[0][:200]],
            f"layers of attention are {', '.join(TARGETS)}",
        ) from err
    if generator is not None:
        _draw(unet, name, rank, generator)
    return list(adapter_parameters(unet, name).values())


def adapter_parameters(unet: nn.Module, name: str = "default") -> dict[str, nn.Parameter]:
    """The parameters of one adapter by their full names."""
    return {key: value for key, value in unet.named_parameters() if ".lora_" in key and f".{name}." in key}


def set_scales(unet: nn.Module, scales: Mapping[str, float]) -> None:
    """Use these adapters, each with its scale, and no others; none gives the pretrained model bit for bit."""
    if not scales:
        unet.disable_adapters()  # type: ignore[operator]
        return
    unet.enable_adapters()  # type: ignore[operator]
    unet.set_adapters(list(scales), list(scales.values()))  # type: ignore[operator]


@contextmanager
def without_adapters(unet: nn.Module) -> Iterator[nn.Module]:
    """The pretrained model for a while; the adapters come back as they were."""
    layers = _layers(unet)
    disabled = [layer.disable_adapters for layer in layers]
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield unet
    finally:
        for layer, before in zip(layers, disabled, strict=True):
            layer._disable_adapters = before


def save_adapter(
    unet: nn.Module,
    path: Path | str,
    name: str = "default",
    *,
    text_encoder: nn.Module | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write one adapter as a safetensors file that every program based on diffusers loads.

    Args:
        unet: has the adapter.
        path: the file.
        name: of the adapter.
        text_encoder: one that has an adapter of this name too, to go into the same file.
        dtype: of the numbers in the file; as they are by default.

    Raises:
        UserError: a model has no adapter of this name.
    """
    from safetensors.torch import save_file

    named = {f"{PREFIX}.{key}": one for key, one in _weights(unet, name).items()}
    if text_encoder is not None:
        for key, one in _weights(text_encoder, name).items():
            named[f"{TEXT_PREFIX}.text_model.{key.removeprefix('text_model.')}"] = one
    path = Path(path)
    with atomic_path(path) as temporary:
        contents = {key: one.detach().to("cpu", dtype).contiguous() for key, one in named.items()}
        save_file(contents, temporary, metadata={"format": "pt"})
    return path


def load_adapter(unet: nn.Module, source: Path | str, name: str = "default", scale: float = 1.0) -> None:
    """Add an adapter from a file, a folder or the hub, in the format of diffusers or of kohya's scripts.

    Raises:
        MissingFileError: there is no such file.
        ModelUnavailableError: the hub does not give it.
        UserError: the file is damaged, or belongs to another kind of UNet.
    """
    from diffusers import StableDiffusionPipeline

    weights, alphas = _read(source)
    used = active_scales(unet)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are meant
            StableDiffusionPipeline.load_lora_into_unet(weights, alphas, unet, adapter_name=name)
    except (RuntimeError, ValueError, KeyError) as err:
        raise _misfit(source, err) from err
    if name not in getattr(unet, "peft_config", {}):
        raise UserError(
            f"The adapter {source} holds nothing for the UNet.", hint="is it one of a text encoder?"
        )
    unet.requires_grad_(False)
    set_scales(unet, {**used, name: scale})


def load_adapters(unet: nn.Module, files: Sequence[LoRAFile], *, fuse: bool = False) -> None:
    """Add several adapters, called lora0, lora1, ...; with `fuse` they become part of the weights, so that
    what is put on the UNet afterwards sees one plain model.

    Raises:
        MissingFileError, ModelUnavailableError, UserError: as `load_adapter`.
    """
    for number, one in enumerate(files):
        load_adapter(unet, one.path, f"lora{number}", one.scale)
    if fuse and files:
        unet.fuse_lora()  # type: ignore[operator]
        unet.unload_lora()  # type: ignore[operator]


def load_text_adapter(
    encoder: nn.Module, source: Path | str, name: str = "default", scale: float = 1.0
) -> bool:
    """Add what an adapter holds for the text encoder; whether it holds anything.

    Raises:
        MissingFileError, ModelUnavailableError, UserError: as `load_adapter`.
    """
    from diffusers import StableDiffusionPipeline

    weights, alphas = _read(source)
    if not any(key.startswith(f"{TEXT_PREFIX}.") for key in weights):
        return False
    try:
        StableDiffusionPipeline.load_lora_into_text_encoder(
            weights, alphas, encoder, prefix=TEXT_PREFIX, lora_scale=scale, adapter_name=name
        )
    except (RuntimeError, ValueError, KeyError) as err:
        raise _misfit(source, err) from err
    encoder.requires_grad_(False)
    return True


def active_scales(unet: nn.Module) -> dict[str, float]:
    """The adapters that are in use and their scales."""
    for layer in _layers(unet):
        if layer.disable_adapters:
            return {}
        return {
            name: layer.scaling[name] * layer.r[name] / layer.lora_alpha[name]
            for name in layer.active_adapters
            if name in layer.scaling
        }
    return {}


def _weights(model: nn.Module, name: str) -> dict[str, torch.Tensor]:
    from peft.utils import get_peft_model_state_dict

    if name not in getattr(model, "peft_config", {}):
        known = ", ".join(getattr(model, "peft_config", {})) or "none"
        raise UserError(f"The {type(model).__name__} has no adapter {name!r}.", [f"it has: {known}"])
    found: dict[str, torch.Tensor] = get_peft_model_state_dict(model, adapter_name=name)
    return found


def _misfit(source: Path | str, err: Exception) -> UserError:
    return UserError(
        f"The adapter {source} does not fit this model.",
        [str(err).splitlines()[0][:200]],
        "an adapter only fits the family of models that it was trained on",
    )


def _read(source: Path | str) -> tuple[dict[str, Any], Any]:
    from diffusers import StableDiffusionPipeline

    path = Path(source).expanduser()
    if (path / ADAPTER_FILE).is_file():
        path = path / ADAPTER_FILE
    local = path.exists()
    if not local and (path.suffix == ".safetensors" or str(source).startswith((".", "/", "~"))):
        raise MissingFileError(path, "adapter")
    options: dict[str, Any] = {"use_safetensors": True, "local_files_only": local}
    try:
        if path.is_file():
            options["weight_name"] = path.name
            return StableDiffusionPipeline.lora_state_dict(str(path.parent), **options)
        return StableDiffusionPipeline.lora_state_dict(str(path if local else source), **options)
    except SafetensorError as err:
        raise UserError(f"The adapter {source} is damaged and cannot be read.", [str(err)[:200]]) from err
    except (OSError, ValueError) as err:
        if local:
            raise UserError(
                f"The adapter {source} cannot be read.", [str(err).splitlines()[0][:200]]
            ) from err
        raise ModelUnavailableError(str(source), str(err).splitlines()[0][:200], ["a local file"]) from err


def _layers(unet: nn.Module) -> list[Any]:
    from peft.tuners.lora import LoraLayer

    return [one for one in unet.modules() if isinstance(one, LoraLayer)]


@torch.no_grad()
def _draw(unet: nn.Module, name: str, rank: int, generator: torch.Generator) -> None:
    for key, weight in adapter_parameters(unet, name).items():
        if ".lora_A." in key:
            weight.copy_(torch.randn(weight.shape, generator=generator).to(weight) / rank)
