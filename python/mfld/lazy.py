"""Packages whose names are loaded when they are first asked for: a program pays for what it uses."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from typing import Any


def names(package: str, homes: Mapping[str, str], listed: list[str]) -> tuple[Callable[[str], Any], Callable[[], Any]]:
    """``__getattr__`` and ``__dir__`` of a package whose names are those of its modules.

    Parameters
    ----------
    package : str
    homes : mapping of str to str
        Modules of the package, and their names between blanks. Its other modules are loaded under their own names.
    listed : list of str
        ``__all__`` of the package.

    Examples
    --------
    >>> from mfld import lazy
    >>> find, listing = lazy.names("json", {"decoder": "JSONDecoder"}, ["JSONDecoder"])
    >>> find("JSONDecoder").__module__, find("scanner").__name__
    ('json.decoder', 'json.scanner')
    """
    home = {name: module for module, own in homes.items() for name in own.split()}

    def find(name: str) -> Any:
        if name in home:
            found = getattr(importlib.import_module(f"{package}.{home[name]}"), name)
        elif not name.startswith("_") and importlib.util.find_spec(f"{package}.{name}") is not None:
            found = importlib.import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, found)  # the next time nobody asks
        return found

    def listing() -> list[str]:
        return sorted({*vars(sys.modules[package]), *listed})

    return find, listing
