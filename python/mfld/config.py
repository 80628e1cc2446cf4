"""Parts that this installation is made of."""

import platform
from typing import Any

import numpy as np

from mfld import _core, validation


def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Report versions, instruction-set levels, compiler and threads: what a bug report or a benchmark needs.

    Parameters
    ----------
    mode : {"stdout", "dicts"}
        Print the report, or return it as a dict of strings, numbers and lists.

    Returns
    -------
    dict or None
        ``version``; ``level``, the instruction-set level in use; ``available_levels`` that this processor runs, best
        first; ``built_levels`` of this installation; ``bfloat16``, whether `MFLD` has this ``dtype`` here;
        ``compiler``; ``eigen``, its version; ``openmp``; ``max_threads``, what ``num_threads=None`` stands for;
        ``numpy`` and ``python``, their versions.

    Examples
    --------
    >>> import mfld
    >>> report = mfld.show_config(mode="dicts")
    >>> report["level"] in report["available_levels"]
    True
    """
    validation.choice("mode", mode, ("stdout", "dicts"))
    backend = _core.backend
    report = {
        "version": _core.__version__,
        "level": backend.isa,
        "available_levels": _core.available_levels(),
        "built_levels": sorted(_core.built_levels()),
        "bfloat16": backend.has_bfloat16,
        "compiler": backend.compiler,
        "eigen": backend.eigen,
        "openmp": backend.has_openmp,
        "max_threads": backend.max_threads(),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    if mode == "dicts":
        return report
    for name, value in report.items():
        print(f"{name}: {', '.join(value) if isinstance(value, list) else value}")
    return None
