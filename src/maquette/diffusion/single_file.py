"""Pipelines from one checkpoint file, the way they are passed around beside the hub.

A checkpoint holds weights and nothing else. How its networks are built, and the tokenizer, come from the
folder of a pipeline of the same kind: one that is named, "model.safetensors?config=FOLDER_OR_ID", or the
model that diffusers recognises in the file, whose small files are then read from the cache or the hub.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

import torch
from safetensors import SafetensorError, safe_open

from maquette.core.errors import ConfigError, MissingFileError, ModelUnavailableError, UserError
from maquette.diffusion.families.kinds import family_of, parts_of
from maquette.diffusion.hub import fetch_configs

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

SUFFIXES: Final = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
"""Of names that are taken for checkpoints; only the first is read."""


def is_single_file(name: str) -> bool:
    """Whether `name` is that of a checkpoint rather than of a folder or a model of the hub."""
    return name.partition("?")[0].lower().endswith(SUFFIXES)


def checkpoint_path(name: str) -> Path:
    """The checkpoint that a name names.

    Raises:
        UserError: it is not there, or is pickled.
    """
    path = Path(name.partition("?")[0]).expanduser()
    if not path.is_file():
        raise MissingFileError(path, "checkpoint")
    if path.suffix.lower() != ".safetensors":
        raise UserError(
            f"The checkpoint {path} is not read: files of the kind {path.suffix} may run code when they are.",
            hint="convert it to .safetensors, or use the model's folder in the layout of diffusers",
        )
    return path


def config_folder(name: str) -> Path:
    """The pipeline folder that says how the networks of a checkpoint are built.

    Raises:
        UserError: the file is damaged or of no kind that diffusers knows, or the folder cannot be had.
    """
    given = parse_qs(name.partition("?")[2])
    if unknown := sorted(given.keys() - {"config"}):
        raise ConfigError(f"{name.partition('?')[0]}?{unknown[0]}", given[unknown[0]][0], "the option config")
    path = checkpoint_path(name)
    config = given["config"][0] if given else recognised(path)
    folder = Path(config).expanduser()
    if folder.is_dir():
        return folder
    try:
        return fetch_configs(config)
    except ModelUnavailableError as err:
        raise UserError(
            f"The checkpoint {path.name} needs the configuration of {config}, which cannot be had.",
            [err.reason],
            f"name a pipeline folder of the same kind: {path.name}?config=FOLDER",
        ) from err


def recognised(path: Path) -> str:
    """The model of the hub whose networks a checkpoint fits.

    Raises:
        UserError: the file is damaged, or is no checkpoint of a model that diffusers knows.
    """
    from diffusers.loaders.single_file_utils import fetch_diffusers_config, load_single_file_checkpoint

    _check(path)
    try:
        found = fetch_diffusers_config(load_single_file_checkpoint(str(path), local_files_only=True))
    except (KeyError, ValueError, TypeError) as err:
        raise _not_known(path, err) from err
    return str(found["pretrained_model_name_or_path"])


def load_single_file(
    name: str, folder: Path, index: dict[str, Any], wanted: Sequence[str], dtype: torch.dtype
) -> DiffusionPipeline:
    """The pipeline of a checkpoint, with the parts that are wanted; `folder` and its `index` say how.

    Raises:
        UserError: the file is damaged, or does not hold these networks.
    """
    path = checkpoint_path(name)
    _check(path)
    family_of(index)
    kind = getattr(importlib.import_module("diffusers"), str(index["_class_name"]), None)
    if not hasattr(kind, "from_single_file"):
        raise UserError(f"A {index['_class_name']} cannot be loaded from one file; use its folder.")
    absent = {part: None for part in parts_of(index) if part not in wanted}
    try:
        pipeline = kind.from_single_file(
            str(path), config=str(folder), local_files_only=True, torch_dtype=dtype, **absent
        )
    except NotImplementedError as err:
        raise UserError(
            f"The checkpoint {path.name} lacks weights that its configuration asks for.",
            [f"read as a {index['_class_name']}, configured like {folder}"],
            "the configuration may be that of another kind of model: name the right one, ?config=FOLDER",
        ) from err
    except (*_broken(), SafetensorError) as err:
        raise _not_known(path, err) from err
    if lost := [name for name, weight in _weights(pipeline) if weight.is_meta]:
        raise UserError(
            f"The checkpoint {path.name} lacks {len(lost)} weights.", lost[:5], "download it again"
        )
    return pipeline


def _weights(pipeline: DiffusionPipeline) -> Iterator[tuple[str, torch.Tensor]]:
    for part, network in pipeline.components.items():
        if isinstance(network, torch.nn.Module):
            yield from ((f"{part}.{name}", weight) for name, weight in network.state_dict().items())


def _broken() -> tuple[type[Exception], ...]:
    from diffusers.loaders.single_file_utils import SingleFileComponentError

    return (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SingleFileComponentError)


def _check(path: Path) -> None:
    try:
        with safe_open(path, framework="pt") as handle:
            handle.keys()
    except (OSError, SafetensorError) as err:
        raise UserError(
            f"The file {path} is damaged and cannot be read.", [_first_line(err)], "download it again"
        ) from err


def _not_known(path: Path, err: Exception) -> UserError:
    return UserError(
        f"The checkpoint {path.name} could not be read as a whole model.",
        [_first_line(err)],
        "files of one network, or of a LoRA, are no models; for a whole model name its kind: ?config=FOLDER",
    )


def _first_line(err: Exception) -> str:
    return f"{type(err).__name__}: {(str(err).splitlines() or [''])[0][:200]}"
