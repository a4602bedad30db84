"""Messages for people go through the logger "maquette"; nothing below the commands prints."""

import logging
import os

from maquette.core.processes import is_leader

ROOT = "maquette"

VERBOSITY_VARIABLES = ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY")
"""Read by libraries when they are first imported."""

QUIET = {"TORCH_CPP_LOG_LEVEL": "ERROR", "KINETO_LOG_LEVEL": "6"}
"""What has torch's own core, and its profiler (which tells each start and stop on level 5), say less."""

_set_here: dict[str, str] = {}
_warned: set[str] = set()


def get_logger(name: str = ROOT) -> logging.Logger:
    """The logger of a module; call it with `__name__`."""
    return logging.getLogger(name if name.startswith(ROOT) else f"{ROOT}.{name}")


def setup_logging(verbose: bool = False, handler: logging.Handler | None = None) -> logging.Logger:
    """Send our messages to `handler` (plain text on stderr by default), from INFO on, or DEBUG when
    `verbose`.

    Calling it again replaces the handler of the call before. Of several processes of a run only the leading
    one speaks, of anything but errors.
    """
    logger = logging.getLogger(ROOT)
    handler = handler or _stderr_handler()
    for old in logger.handlers[:]:
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.setLevel((logging.DEBUG if verbose else logging.INFO) if is_leader() else logging.ERROR)
    logger.propagate = False
    return logger


def set_library_verbosity(verbose: bool = False) -> None:
    """Have libraries that are not imported yet report errors only, or all when `verbose`; variables of the
    environment that are set already win.
    """
    wanted = dict.fromkeys(VERBOSITY_VARIABLES, "info" if verbose else "error") | ({} if verbose else QUIET)
    for name, value in wanted.items():
        if name not in os.environ:
            os.environ[name] = _set_here[name] = value


def is_set_here(name: str) -> bool:
    """Whether a variable of the environment is from `set_library_verbosity`, and not from the user."""
    return name in _set_here and os.environ.get(name) == _set_here[name]


def warn_once(message: str, logger: logging.Logger | None = None) -> None:
    """A warning that is written the first time in this process only."""
    if message in _warned:
        return
    _warned.add(message)
    (logger or get_logger()).warning(message)


def _stderr_handler() -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    return handler
