"""From a recipe and a command line to the `ExperimentConfig` of a run; nothing is written to disk here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from maquette.core.errors import ConfigError, asked_for_by
from maquette.core.log import get_logger, warn_once
from maquette.core.overrides import apply_overrides, apply_values, split_override
from maquette.core.paths import safe_name
from maquette.core.presets import apply_preset
from maquette.core.recipes import FORMAT, read_recipe, readable, translate_older
from maquette.core.registry import load_extension, registry
from maquette.core.resolvers import register_resolvers
from maquette.core.stages import difference, in_stage, merged, take_stages, words_for
from maquette.core.structured import (
    check_blocks,
    check_keys,
    check_no_missing,
    escaped,
    parse_structured,
    resolved,
)

__all__ = ["ExperimentConfig", "check_modules", "load_config", "parse_structured", "stage_configs"]

BLOCKS = ("data", "system", "trainer", "training", "checkpoint")
"""Keys that hold keys."""

LISTS = ("stages", "extensions")
"""Keys that hold lists."""

TAG_LIMIT = 80
"""Bytes of a tag that go into the name of a run folder."""

register_resolvers()


@dataclass(kw_only=True)
class ExperimentConfig:
    """Everything that one run is asked to be; the mappings are OmegaConf DictConfigs, resolved."""

    format: str | None = None
    """`maquette/1`; None for a recipe of the older framework."""
    name: str = "default"
    """Name of the experiment: a folder below `exp_root_dir`."""
    description: str = ""
    """One line for people."""
    tag: str = ""
    """Name of the run: a folder below `name`, made safe and cut to a sensible length."""
    seed: int = 0
    """Seed of every random draw."""
    use_timestamp: bool = True
    """Whether the start time follows the tag in the name of the folder."""
    timestamp: str | None = None
    """That time, `@YYYYMMDD-HHMMSS`; made when the recipe is read unless it is given."""
    exp_root_dir: str = "outputs"
    """Folder of all experiments."""
    run_dir: str | None = None
    """The run folder itself, in place of `exp_root_dir/name/tag@timestamp`."""
    n_gpus: int = 1
    """How many processes take part; recipes refer to it."""
    resume: str | None = None
    """Checkpoint to continue from."""
    data_type: str = ""
    """Registered name of the data module."""
    data: dict[str, Any] = field(default_factory=dict)
    """Its config."""
    system_type: str = ""
    """Registered name of the system."""
    system: dict[str, Any] = field(default_factory=dict)
    """Its config, with those of its parts."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """Arguments of the Lightning Trainer."""
    training: dict[str, Any] = field(default_factory=dict)
    """Our own options of the training loop."""
    checkpoint: dict[str, Any] = field(default_factory=dict)
    """Arguments of Lightning's ModelCheckpoint."""
    stages: list[Any] = field(default_factory=list)
    """Changes of the config that follow each other in one run, coarse to fine (`core.stages`), each a mapping
    with a `name`; resolved, and only what differs from the rest of this config."""
    extensions: list[str] = field(default_factory=list)
    """Folders and files to import, so that they register their modules."""

    def __post_init__(self) -> None:
        if self.format not in (None, FORMAT):
            raise ConfigError("format", self.format, FORMAT, "a newer version of maquette may read it")
        if not self.tag and not self.use_timestamp and self.run_dir is None:
            raise ConfigError("tag", self.tag, "a name for the run, because use_timestamp is off")
        both = sorted(set(self.trainer) & set(self.training))
        if both:
            key = both[0]
            raise ConfigError(
                f"training.{key}", self.training[key], f"{key} in trainer or in training, not in both"
            )

    @property
    def exp_dir(self) -> Path:
        """Folder of this experiment's runs."""
        return Path(self.exp_root_dir).expanduser() / safe_name(self.name, TAG_LIMIT)

    @property
    def trial_name(self) -> str:
        """Name of the run folder."""
        tag = safe_name(self.tag, TAG_LIMIT) if self.tag else ""
        return f"{tag}{self.timestamp or ''}" if self.use_timestamp else tag

    @property
    def trial_dir(self) -> Path:
        """The run folder; it may not exist."""
        if self.run_dir is not None:
            return Path(self.run_dir).expanduser()
        return self.exp_dir / self.trial_name

    def to_dict(self) -> dict[str, Any]:
        """The same as plain dictionaries and lists."""
        content = {one.name: getattr(self, one.name) for one in fields(self)}
        return {key: _plain(value) for key, value in content.items()}

    def to_yaml(self) -> str:
        """The same as a recipe that `load_config` reads back to an equal config."""
        return OmegaConf.to_yaml(OmegaConf.create(escaped(self.to_dict())))


def load_config(
    source: str | Path | Mapping[str, Any] | DictConfig,
    overrides: Sequence[str] = (),
    cli: Mapping[str, Any] | None = None,
) -> ExperimentConfig:
    """Read a recipe, put the overrides over it, check it, and resolve it.

    Where an override names another module (`system.material_type=...`), the recipe's options for the old one
    stay as far as the new one has them too; the others are left out, and a notice names them.

    A recipe with stages is read once for each of them, every word applied to each, so that whatever can be
    refused is refused before the first one starts.

    Args:
        source: path of a YAML file, name of a shipped recipe, or the content itself.
        overrides: words `key.path=value`; later ones win. `preset=NAME` applies a preset below all other
            overrides; `stages.N.key.path=value` changes one stage only.
        cli: values by dotted key that win over everything, taken as they are.

    Raises:
        MissingFileError: there is no such recipe.
        UnknownKeyError, ConfigError, UnknownNameError: the recipe or an override is wrong; the key is named.
    """
    with readable("the recipe"):
        recipe = read_recipe(source)
        translate_older(recipe, source)
        return _load(recipe, overrides, cli)


def stage_configs(config: ExperimentConfig) -> list[ExperimentConfig]:
    """The whole config of each stage of a run; none for a run without stages."""
    whole = OmegaConf.create(escaped({**config.to_dict(), "stages": []}))
    return [_finish(_staged(whole, escaped(_plain(entry)))) for entry in config.stages]


def check_modules(cfg: ExperimentConfig) -> None:
    """Check the config of the data module, the system and each of its parts against the classes that will
    read it, for every stage.

    This imports them, so it is done when a run is about to start.

    Raises:
        UnknownKeyError, ConfigError, UnknownNameError: what a module would refuse, with the full key; or a
            recipe that names no data module, or no system.
    """
    if not cfg.stages:
        _check_modules(cfg)
    for index, stage in enumerate(stage_configs(cfg)):
        with in_stage(index, cfg.stages[index]["name"]):
            _check_modules(stage)


def _check_modules(cfg: ExperimentConfig) -> None:
    for key, name in (("data_type", cfg.data_type), ("system_type", cfg.system_type)):
        if not name:
            raise ConfigError(key, name, "a registered name; `maquette show modules` lists them")
    for type_key, name, content_key, content in _modules(
        cfg.data_type, cfg.data, cfg.system_type, cfg.system
    ):
        cls = registry.find(name, _kind(type_key))
        if hasattr(cls, "Config"):
            parse_structured(cls.Config, content, content_key)


def _load(recipe: DictConfig, overrides: Sequence[str], cli: Mapping[str, Any] | None) -> ExperimentConfig:
    """The recipe as a whole, then each of its stages."""
    check_blocks(OmegaConf.to_container(recipe, resolve=False), BLOCKS, LISTS)
    apply_overrides(recipe, [word for word in overrides if split_override(word)[0] == "stages"])
    entries = take_stages(recipe)
    names = [str(entry["name"]) for entry in entries]
    words = [word for word in overrides if split_override(word)[0] != "stages"]
    config = _loaded(recipe.copy(), words_for(words, None, names), cli)
    for index, entry in enumerate(entries):
        with in_stage(index, names[index]):
            staged = _staged(recipe, entry)
            one = _loaded(staged, words_for(words, index, names), cli)
            changes = difference(config.to_dict(), one.to_dict())
        config.stages.append({"name": names[index], **changes})
    return config


def _loaded(recipe: DictConfig, overrides: Sequence[str], cli: Mapping[str, Any] | None) -> ExperimentConfig:
    """One recipe without stages, with everything that is laid over it."""
    presets = [value for key, value in map(split_override, overrides) if key == "preset"]
    words = [word for word in overrides if split_override(word)[0] != "preset"]
    cfg = _overridden(recipe, words, cli)
    _import_extensions(cfg)
    _forget_replaced(recipe, cfg)
    for preset in presets:
        apply_preset(recipe, _overridden(recipe, words, cli), preset)
    return _finish(_overridden(recipe, words, cli))


def _staged(recipe: DictConfig, entry: Mapping[str, Any]) -> DictConfig:
    """The recipe of one stage; options of the system that this stage's system does not have are left out."""
    base: Any = OmegaConf.to_container(recipe, resolve=False)
    whole = merged(base, entry)
    if whole.get("system_type") != base.get("system_type"):
        config_class = getattr(registry.find(whole["system_type"], "system"), "Config", None)
        known = {one.name for one in fields(config_class)} if config_class else set(whole["system"])
        known |= set(entry.get("system") or {})
        whole["system"] = {key: value for key, value in whole["system"].items() if key in known}
    return OmegaConf.create(whole)


def _finish(cfg: DictConfig) -> ExperimentConfig:
    """Check and resolve a merged recipe."""
    check_keys(ExperimentConfig, {str(key): None for key in cfg})
    check_no_missing(cfg)
    node = parse_structured(ExperimentConfig, resolved(cfg))
    config = ExperimentConfig(**{one.name: node[one.name] for one in fields(ExperimentConfig)})
    for type_key, name, _, _ in _modules(config.data_type, config.data, config.system_type, config.system):
        registry.check(name, _kind(type_key), at=type_key)
    _stamp(config)
    return config


def _stamp(config: ExperimentConfig) -> None:
    if not config.use_timestamp or config.timestamp is not None:
        return
    if config.n_gpus > 1:
        warn_once("Several processes do not share a clock: the run folder gets no timestamp.")
        config.timestamp = ""
    else:
        config.timestamp = datetime.now().strftime("@%Y%m%d-%H%M%S")


def _modules(
    data_type: str, data: Mapping[str, Any], system_type: str, system: Mapping[str, Any]
) -> list[tuple[str, str, str, Any]]:
    """(key of the name, name, key of the config, config) of every module that a recipe names."""
    found: list[tuple[str, str, str, Any]] = [
        ("data_type", data_type, "data", data),
        ("system_type", system_type, "system", system),
    ]
    for key, name in system.items():
        part = key.removesuffix("_type")
        if part != key and isinstance(name, str) and _kind(key) in registry.kinds():
            found.append((f"system.{key}", name, f"system.{part}", system.get(part)))
    return [one for one in found if one[1]]


def _kind(type_key: str) -> str:
    """The kind of module that `system.prompt_processor_type` names: "prompt-processor"."""
    return type_key.rpartition(".")[2].removesuffix("_type").replace("_", "-")


def _overridden(recipe: DictConfig, words: Sequence[str], cli: Mapping[str, Any] | None) -> DictConfig:
    cfg = recipe.copy()
    apply_overrides(cfg, words)
    apply_values(cfg, cli or {})
    return cfg


def _forget_replaced(recipe: DictConfig, final: DictConfig) -> None:
    """Take out of `recipe` the options of modules that `final` replaces by others without such options."""
    before = {type_key: name for type_key, name, _, _ in _named_modules(recipe)}
    for type_key, name, content_key, _ in _named_modules(final):
        options = OmegaConf.select(recipe, content_key)
        if name == before.get(type_key) or not isinstance(options, DictConfig):
            continue
        registry.check(name, _kind(type_key), at=type_key)
        config_class = getattr(registry.find(name, _kind(type_key)), "Config", None)
        known = {one.name for one in fields(config_class)} if config_class else set(options)
        strange = [str(key) for key in options if key not in known]
        for key in strange:
            del options[key]
        if strange:
            notice = "%s=%s: left out, because it has no such options: %s"
            get_logger(__name__).info(notice, type_key, name, ", ".join(strange))


def _named_modules(cfg: DictConfig) -> list[tuple[str, str, str, Any]]:
    """As `_modules`, for a recipe that is not checked yet; names that are interpolations are not followed."""
    content: Any = OmegaConf.to_container(cfg, resolve=False)
    system = content.get("system") if isinstance(content.get("system"), dict) else {}
    found = _modules(content.get("data_type"), {}, content.get("system_type"), system)
    return [one for one in found if isinstance(one[1], str) and "${" not in one[1]]


def _import_extensions(cfg: DictConfig) -> None:
    extensions = OmegaConf.select(cfg, "extensions") or []
    if isinstance(extensions, str):
        raise ConfigError("extensions", extensions, "a list of files and folders")
    with asked_for_by("extensions"):
        for path in extensions:
            load_extension(str(path))


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
