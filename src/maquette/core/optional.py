"""Packages that only some features need, imported when the feature is used."""

import importlib
from types import ModuleType

from maquette.core.errors import MissingBackendError


def require(package: str, extra: str) -> ModuleType:
    """Import `package`, or say which extra of maquette installs it.

    Raises:
        MissingBackendError: the package is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as err:
        raise MissingBackendError(package, hint=f"pip install 'maquette[{extra}]'") from err
