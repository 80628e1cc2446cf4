"""Libraries that parts of mfld need beyond NumPy, each the matter of an extra (``pip install 'mfld[NAME]'``)."""

from __future__ import annotations

import importlib
from typing import Any


def library(module: str, extra: str, user: str) -> Any:
    """A module of another library, imported where it is used.

    Parameters
    ----------
    module : str
        Its full name.
    extra : str
        The extra of mfld that installs it.
    user : str
        Who asks, for the message.

    Raises
    ------
    ImportError
        If it is not installed; the message names the extra.

    Examples
    --------
    >>> from mfld import extras
    >>> extras.library("json", "diagnostics", "an example").dumps([1])
    '[1]'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        name = {"ot": "POT", "arviz_stats": "arviz-stats", "scipy": "SciPy", "PIL": "Pillow"}.get(package, package)
        raise ImportError(f"{user} needs {name}: pip install 'mfld[{extra}]'") from error
