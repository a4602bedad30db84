"""What the ``training:`` block does to a model before it is trained, and while it is."""

from __future__ import annotations

from lightning.pytorch import Callback

from maquette.core.base import BaseModule
from maquette.core.log import get_logger
from maquette.training.base_system import BaseSystem
from maquette.training.config import TrainingConfig
from maquette.training.craft.compiling import compile_modules
from maquette.training.craft.freezing import Freeze, freeze_for_good
from maquette.training.craft.gradient_checkpointing import use_gradient_checkpointing
from maquette.training.craft.initialisation import initialise
from maquette.training.craft.memory_format import use_channels_last
from maquette.training.craft.rules import freeze_rules, init_rules

log = get_logger(__name__)


def prepare(system: BaseSystem, training: TrainingConfig) -> None:
    """Initialise, freeze, lay out and compile, in this order; before optimizers are made.

    Raises:
        ConfigError: a path or pattern of the block matches nothing.
    """
    if training.init and not system.resumed:
        keep = system.taken | _read_by_modules(system)
        drawn = initialise(system, init_rules(training.init), system.streams.seed, keep)
        log.info("training.init: %d parameters drawn", len(drawn))
    freeze_for_good(system, freeze_rules(training.freeze))
    use_channels_last(system, training.channels_last)
    compile_modules(system, training.compile, training.compile_mode)
    use_gradient_checkpointing(system, training.gradient_checkpointing)


def _read_by_modules(system: BaseSystem) -> set[str]:
    """Parameters below modules whose own config takes their weights from a file."""
    readers = [
        name
        for name, one in system.named_modules()
        if isinstance(one, BaseModule) and one.cfg.weights is not None
    ]
    return {
        name for name, _ in system.named_parameters() if any(name.startswith(f"{one}.") for one in readers)
    }


def craft_callbacks(training: TrainingConfig) -> list[Callback]:
    """What freezes and thaws while the model is trained."""
    rules = [rule for rule in freeze_rules(training.freeze) if not rule.for_good]
    return [Freeze(rules)] if rules else []
