"""Text or images in, 3D asset out, on any machine.

Importing this package loads no heavy library: modules are registered by name and imported when they are
asked for.
"""

from maquette.core.registry import find, register

__version__ = "0.1.0"

__all__ = ["__version__", "find", "register"]
