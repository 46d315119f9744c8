"""What not every platform has.

Modules of the standard library that Windows lacks are imported with `optional`, and single names
are asked for with `hasattr`, each where it is used. So the code never asks which platform it runs
on, and type checkers understand it for all of them.
"""

import importlib
from types import ModuleType


def optional(name: str) -> ModuleType | None:
    """Return a module of the standard library, or None where there is no such module."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
