"""Low-rank adapters of UNets and text encoders (LoRA, Hu et al. 2021), by PEFT, in the files of diffusers."""

from __future__ import annotations

import logging
import math
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
from maquette.diffusion.load import quiet_libraries

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
            UserError: an entry is something else, or its scale is no number.
        """
        parsed = []
        for number, entry in enumerate(entries):
            given = {"path": entry} if isinstance(entry, str) else entry
            try:
                if not (isinstance(given, Mapping) and "path" in given and set(given) <= {"path", "scale"}):
                    raise ValueError("other keys")
                one = cls(path=str(given["path"]), scale=float(given.get("scale", 1.0)))
                if not math.isfinite(one.scale):
                    raise ValueError("a scale is finite")
            except (TypeError, ValueError) as err:
                raise UserError(
                    f"{key}[{number}] is no adapter: {entry!r}.", hint="{path: FILE, scale: 1.0}"
                ) from err
            parsed.append(one)
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

    weights, alphas = _read(source, unet.config)
    used = active_scales(unet)
    try:
        with _quiet_loading():
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
    encoder: nn.Module,
    source: Path | str,
    name: str = "default",
    scale: float = 1.0,
    part: str = TEXT_PREFIX,
) -> bool:
    """Add what an adapter holds for a text encoder to those that are in use; whether it holds anything.

    Args:
        encoder: of transformers.
        source: as for `load_adapter`.
        name: of the adapter.
        scale: how much of it is added.
        part: what the pipeline calls the encoder; `text_encoder_2` is the second one of SDXL.

    Raises:
        MissingFileError, ModelUnavailableError, UserError: as `load_adapter`.
    """
    from diffusers import StableDiffusionPipeline

    weights, alphas = _read(source)
    if not any(key.startswith(f"{part}.") for key in weights):
        return False
    used = active_scales(encoder)
    try:
        with _quiet_loading():
            StableDiffusionPipeline.load_lora_into_text_encoder(
                weights, alphas, encoder, prefix=part, adapter_name=name
            )
    except (RuntimeError, ValueError, KeyError) as err:
        raise _misfit(source, err) from err
    _set_text_scales(encoder, {**used, name: scale})
    encoder.requires_grad_(False)
    return True


def active_scales(model: nn.Module) -> dict[str, float]:
    """The adapters that are in use and their scales."""
    found: dict[str, float] = {}
    for layer in _layers(model):
        if layer.disable_adapters:
            return {}
        for name in layer.active_adapters:
            if name in layer.scaling and name not in found:
                found[name] = layer.scaling[name] * layer.r[name] / layer.lora_alpha[name]
    return found


def _set_text_scales(encoder: Any, scales: Mapping[str, float]) -> None:
    """`set_scales` for a model of transformers, which uses only the adapter that came last."""
    encoder.set_adapter(list(scales))
    for layer in _layers(encoder):
        for name in layer.scaling:
            layer.set_scale(name, scales.get(name, 1.0))


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """No warning that there are several adapters, which is meant, and no list of all layers that do not fit
    before the error that says so.
    """
    loader = logging.getLogger("diffusers.loaders.peft")
    disabled, loader.disabled = loader.disabled, True
    try:
        with quiet_libraries(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")
            yield
    finally:
        loader.disabled = disabled


def _weights(model: nn.Module, name: str) -> dict[str, torch.Tensor]:
    from peft.utils import get_peft_model_state_dict

    if name not in getattr(model, "peft_config", {}):
        known = ", ".join(getattr(model, "peft_config", {})) or "none"
        raise UserError(f"The {type(model).__name__} has no adapter {name!r}.", [f"it has: {known}"])
    found: dict[str, torch.Tensor] = get_peft_model_state_dict(model, adapter_name=name)
    return found


def _misfit(source: Path | str, err: Exception) -> UserError:
    lines = [line.strip() for line in str(err).splitlines()]
    return UserError(
        f"The adapter {source} does not fit this model.",
        [next((line for line in lines if "size mismatch" in line), lines[0])[:200]],
        "an adapter only fits the family of models that it was trained on",
    )


def _read(source: Path | str, unet_config: Any = None) -> tuple[dict[str, Any], Any]:
    """The weights of an adapter, and the alphas of one from kohya's scripts; such files number the blocks as
    SDXL's first code did, and the config of the UNet says which is which.
    """
    from diffusers import StableDiffusionPipeline

    path = Path(source).expanduser()
    if (path / ADAPTER_FILE).is_file():
        path = path / ADAPTER_FILE
    local = path.exists()
    if not local and (path.suffix == ".safetensors" or str(source).startswith((".", "/", "~"))):
        raise MissingFileError(path, "adapter")
    options: dict[str, Any] = {"use_safetensors": True, "local_files_only": local, "unet_config": unet_config}
    try:
        if path.is_file():
            options["weight_name"] = path.name
            return StableDiffusionPipeline.lora_state_dict(str(path.parent), **options)
        return StableDiffusionPipeline.lora_state_dict(str(path if local else source), **options)
    except SafetensorError as err:
        raise UserError(f"The adapter {source} is damaged and cannot be read.", [str(err)[:200]]) from err
    except (OSError, ValueError, LookupError) as err:
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
