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

from maquette.core.errors import ModelUnavailableError, UserError
from maquette.core.optional import require
from maquette.core.paths import EMBEDDED_PRIOR, RANDOM_TINY, assets_dir
from maquette.diffusion.families.kinds import FAMILIES, Family, family_of, is_random, parts_of, required
from maquette.diffusion.hub import (
    INDEX,
    alternatives,
    fetch_network,
    fetch_pipeline,
    fetch_variant,
    looks_like_path,
)
from maquette.diffusion.schedulers import other_scheduler
from maquette.diffusion.single_file import checkpoint_path, config_folder, is_single_file, load_single_file

# diffusers and transformers take seconds to import: functions import them, to answer a wrong name at once.
if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

IMAGE_PARTS: Final = ("unet", "vae", "scheduler")
"""What denoising and the passage between pictures and latents need, in Stable Diffusion and SDXL."""

TEXT_PARTS: Final = (
    "tokenizer",
    "text_encoder",
    "tokenizer_2",
    "text_encoder_2",
    "tokenizer_3",
    "text_encoder_3",
)
"""What turns a prompt into numbers; the second pair in SDXL, the third in flow models like SD3."""

_LIBRARIES = ("diffusers", "transformers")
_OUR_CLASSES: Final = {
    "CCProjection": "maquette.diffusion.families.view_projection",
    "CLIPCameraProjection": "maquette.diffusion.families.view_projection",
    "MultiViewUNet": "maquette.diffusion.families.multiview_unet",
    "Zero123Pipeline": "maquette.diffusion.families.view_projection",
    "Zero1to3StableDiffusionPipeline": "maquette.diffusion.families.view_projection",
}
"""Classes that repositories bring as code of their own, and our own in their place: theirs is never run."""

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
        name: `maquette/toyworld`, `maquette/random-tiny[?options]`, a folder, an id of the hub, or a
            checkpoint, `FILE.safetensors[?config=FOLDER_OR_ID]`.
        dtype: of the weights.
        parts: names of the parts to load (`IMAGE_PARTS`, `TEXT_PARTS`); the others are None. All that the
            model's family needs by default.
        scheduler: one to put in place of the model's, configured like it: DDPM, DDIM, PNDM, Euler, DPM++,
            LCM, or a class of diffusers.

    Raises:
        ModelUnavailableError: the model is not there, gone or gated.
        UserError: the folder is incomplete or damaged; the part is named.
        MissingBackendError: its vocabulary needs a package that is not installed.
        ConfigError: there is no such scheduler.
    """
    with quiet_libraries():
        wanted = family(name).parts if parts is None else tuple(parts)
        pipeline = _load(name, wanted, dtype)
    pipeline.set_progress_bar_config(disable=True)
    for module in pipeline.components.values():
        _freeze(module)
    if scheduler is not None:
        pipeline.scheduler = other_scheduler(pipeline.scheduler, scheduler)
    return pipeline


def load_part(
    name: str,
    part: str | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    variant: str | None = None,
) -> Any:
    """One part of a model, on the CPU, frozen, in evaluation mode.

    Args:
        name: as for `load_pipeline`.
        part: "unet", "vae", "text_encoder", ...; None where `name` is one network itself, as ControlNets are.
        dtype: of the weights.
        variant: of the files, such as "fp16"; by default the full ones, or "fp16" where there are no others.

    Raises:
        ModelUnavailableError, UserError: as `load_pipeline`.
    """
    if part is None:
        return _load_network(name, dtype, variant)
    if variant is None or is_random(name) or is_single_file(name):
        found = getattr(load_pipeline(name, dtype=dtype, parts=(part,)), part, None)
        if found is None:
            raise UserError(
                f"The model {name} has no part {part}.", [f"it has {', '.join(family(name).parts)}"]
            )
        return found
    folder = model_folder(name, (), part_variant=(part, variant))
    present = parts_of(read_index(folder))
    if part not in present:
        raise UserError(f"The model {name} has no part {part}.", [f"it has {', '.join(present)}"])
    with quiet_libraries():
        return _freeze(_load_part(folder / part, *present[part], dtype, variant))


def family(name: str) -> Family:
    """The family of a model, told without its weights.

    Raises:
        ModelUnavailableError, UserError: as `load_pipeline`.
    """
    if is_random(name):
        from maquette.diffusion.random_parts import RandomPipelineSpec

        return FAMILIES[RandomPipelineSpec.parse(name).family]
    return family_of(read_index(config_folder(name) if is_single_file(name) else model_folder(name, ())))


def newest_change(name: str) -> int:
    """When a model on this disk was last written, in nanoseconds; 0 for one without files."""
    if is_random(name):
        return 0
    if is_single_file(name):
        return checkpoint_path(name).stat().st_mtime_ns
    folder = model_folder(name, family(name).image_parts)
    files = (path for kind in ("safetensors", "json") for path in folder.glob(f"*/*.{kind}"))
    return max((path.stat().st_mtime_ns for path in files), default=0)


def model_folder(
    name: str,
    parts: Sequence[str] = (*IMAGE_PARTS, *TEXT_PARTS),
    *,
    part_variant: tuple[str, str] | None = None,
) -> Path:
    """The local folder of a model; what it lacks of `parts` is fetched from the hub if it is an id of the
    hub. With `part_variant`, one part in a variant of its files is fetched instead.

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
    if looks_like_path(name):
        raise ModelUnavailableError(name, "there is no such folder", alternatives(name))
    return fetch_variant(name, *part_variant) if part_variant else fetch_pipeline(name, parts)


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


def _load(name: str, wanted: Sequence[str], dtype: torch.dtype) -> DiffusionPipeline:
    if is_random(name):
        return _random(name, wanted, dtype)
    if is_single_file(name):
        folder = config_folder(name)
        return load_single_file(name, folder, read_index(folder), wanted, dtype)
    return _load_folder(model_folder(name, wanted), wanted, dtype)


def _random(name: str, wanted: Sequence[str], dtype: torch.dtype) -> DiffusionPipeline:
    from maquette.diffusion.random_pipeline import RandomPipelineSpec, build_random_pipeline

    return build_random_pipeline(RandomPipelineSpec.parse(name), dtype, wanted)


def _freeze(module: Any) -> Any:
    return module.eval().requires_grad_(False) if isinstance(module, torch.nn.Module) else module


def _load_folder(folder: Path, wanted: Sequence[str], dtype: torch.dtype) -> DiffusionPipeline:
    index = read_index(folder)
    present = parts_of(index)
    missing = sorted(set(required(family_of(index), tuple(wanted))) - set(present))
    if missing:
        raise UserError(
            f"The model {folder} cannot be used here: it has no {' and no '.join(missing)}.",
            [f"it is a {index['_class_name']} with the parts {', '.join(present)}"],
            f"these work: {'; '.join(one.what for one in FAMILIES.values())}",
        )
    loaded = {
        part: _load_part(folder / part, *entry, dtype) for part, entry in present.items() if part in wanted
    }
    return _assemble(index, loaded)


def _load_network(name: str, dtype: torch.dtype, variant: str | None) -> Any:
    """A folder or repository that is one network of diffusers."""
    folder = Path(name).expanduser()
    if not (name and folder.is_dir()):
        if looks_like_path(name):
            raise ModelUnavailableError(name, "there is no such folder", alternatives(name))
        folder = fetch_network(name, variant)
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise _damaged(folder / "config.json", err) from err
    with quiet_libraries():
        return _freeze(_load_part(folder, "diffusers", kind, dtype, variant))


def _assemble(index: dict[str, Any], loaded: dict[str, Any]) -> DiffusionPipeline:
    kind = _class_of("diffusers", index["_class_name"], INDEX)
    accepted = inspect.signature(kind.__init__).parameters
    options = {key: value for key, value in index.items() if key in accepted and not isinstance(value, list)}
    if "requires_safety_checker" in accepted:
        options["requires_safety_checker"] = False
    absent = {key: None for key, one in accepted.items() if key != "self" and one.default is one.empty}
    return kind(**{**absent, **options, **loaded})


def _load_part(
    folder: Path, library: str, class_name: str, dtype: torch.dtype, variant: str | None = None
) -> Any:
    """One part, of the class that the index names; every weight of a network must be in the file."""
    if not folder.is_dir():
        raise UserError(
            f"The model {folder.parent} is incomplete: its part {folder.name} is missing.", hint=_AGAIN
        )
    kind = _class_of(library, class_name, folder.name)
    if not issubclass(kind, torch.nn.Module):
        _check_vocabulary(folder)
        with _naming(folder):
            return kind.from_pretrained(folder, local_files_only=True)
    options: dict[str, Any] = {
        "variant": _check_weights(folder, variant),
        "use_safetensors": True,
        "local_files_only": True,
    }
    options["dtype" if library == "transformers" else "torch_dtype"] = dtype
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
    home = _OUR_CLASSES.get(class_name, library)
    readable = home in _LIBRARIES or class_name in _OUR_CLASSES
    found = getattr(importlib.import_module(home), class_name, None) if readable else None
    if found is None:
        raise UserError(
            f"The part {part} is a {library}.{class_name}, which cannot be loaded here.",
            hint=f"only classes of {' and '.join(f'{one} {version(one)}' for one in _LIBRARIES)} are loaded",
        )
    return found


def _check_vocabulary(folder: Path) -> None:
    """Refuse a vocabulary that only a package which is not installed can read (DeepFloyd's)."""
    if list(folder.glob("*spiece*.model")) and not (folder / "tokenizer.json").is_file():
        require("sentencepiece", "deepfloyd")


def _check_weights(folder: Path, variant: str | None) -> str | None:
    """Open every weight file of a part; the variant to ask for ("fp16" if there is nothing else), or None."""
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
    if variant is not None and not any(f".{variant}" in path.name for path in files):
        raise UserError(f"The part {folder.name} of {folder.parent} has no files of the variant {variant}.")
    plain = [path for path in files if ".fp16." not in path.name]
    return variant or (None if plain else "fp16")


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
def quiet_libraries() -> Iterator[None]:
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
