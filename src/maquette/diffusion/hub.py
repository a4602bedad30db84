"""Folders of models that lie on the Hugging Face hub, and why one cannot be had, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from maquette.core.errors import ModelUnavailableError
from maquette.core.paths import EMBEDDED_PRIOR
from maquette.diffusion import catalogue

INDEX: Final = "model_index.json"
"""The file that names the parts of a pipeline."""

CONFIG: Final = "config.json"
"""The file that describes one network."""

_KINDS = ("*.json", "*.txt", "*.model", "*.safetensors")
_NEVER = ("*non_ema*", "*openvino*")


def fetch_pipeline(name: str, parts: Sequence[str]) -> Path:
    """The snapshot of a pipeline with these parts, from the hub's cache or from the network.

    Raises:
        ModelUnavailableError: it is not there, gone or gated.
    """
    return _fetch(name, INDEX, [f"{part}/{kind}" for part in parts for kind in _KINDS])


def fetch_network(name: str, variant: str | None = None) -> Path:
    """The snapshot of a repository that is one network, such as a ControlNet.

    Raises:
        ModelUnavailableError: it is not there, gone or gated.
    """
    return _fetch(name, CONFIG, list(_KINDS), variant)


def fetch_variant(name: str, part: str, variant: str) -> Path:
    """The snapshot of a pipeline with one part, in a variant ("fp16") of its weights.

    Raises:
        ModelUnavailableError: it is not there, gone or gated.
    """
    return _fetch(name, INDEX, [f"{part}/{kind}" for kind in _KINDS], variant)


def fetch_configs(name: str) -> Path:
    """The snapshot of a pipeline without any weights: configurations and vocabularies.

    Raises:
        ModelUnavailableError: it is not there, gone or gated.
    """
    return _fetch(name, INDEX, [f"*/{kind}" for kind in _KINDS if kind != "*.safetensors"])


def looks_like_path(name: str) -> bool:
    """Whether a name cannot be an id of the hub."""
    return (
        name.startswith((".", "/", "~"))
        or name.count("/") > 1
        or "\\" in name
        or name.endswith("/")
        or not name
    )


def alternatives(name: str) -> list[str]:
    """What could be used in place of a model."""
    return [*catalogue.alternatives(name), EMBEDDED_PRIOR, "a local folder"]


def _fetch(name: str, key_file: str, patterns: list[str], variant: str | None = None) -> Path:
    from huggingface_hub import errors as hub
    from huggingface_hub import hf_hub_download, snapshot_download

    never = [*_NEVER, *(() if variant else ("*.fp16.*", "*.fp16-*"))]
    try:
        hf_hub_download(name, key_file)
        return Path(snapshot_download(name, allow_patterns=[key_file, *patterns], ignore_patterns=never))
    except (hub.HFValidationError, hub.EntryNotFoundError, hub.HfHubHTTPError, OSError) as err:
        raise ModelUnavailableError(name, _reason(name, key_file, err), alternatives(name)) from err


def _reason(name: str, key_file: str, err: Exception) -> str:
    from huggingface_hub import errors as hub

    entry = catalogue.find(name)
    if entry is not None and entry.removed and not isinstance(err, hub.GatedRepoError):
        return "its owner removed it from the hub, and it is not in the local cache"
    licence = f"its licence ({entry.licence})" if entry and entry.licence else "its licence"
    gated = f"it is gated: {licence} must be accepted on the hub, then log in with `hf auth login`"
    also = f", and it is gated: {licence} must be accepted there first" if entry and entry.gated else ""
    reasons: tuple[tuple[type[Exception], str], ...] = (
        (hub.GatedRepoError, gated),
        (
            hub.RepositoryNotFoundError,
            "the hub does not have it (it was removed, is private, or never existed)",
        ),
        (
            hub.LocalEntryNotFoundError,
            f"it is not in the local cache and the hub cannot be reached{also}",
        ),
        (
            hub.OfflineModeIsEnabled,
            f"it is not in the local cache and the hub is switched off (HF_HUB_OFFLINE){also}",
        ),
        (hub.HFValidationError, "it is neither a folder nor an id of the hub"),
        (hub.EntryNotFoundError, _without(key_file)),
    )
    return next(
        (text for kind, text in reasons if isinstance(err, kind)), f"the hub answered {type(err).__name__}"
    )


def _without(key_file: str) -> str:
    what = "diffusers pipeline" if key_file == INDEX else "network of diffusers"
    return f"the repository holds no {what} ({key_file} is missing)"
