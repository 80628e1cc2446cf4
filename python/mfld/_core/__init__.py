"""The compiled core: one binding, and one build of the kernels chosen for this processor.

The kernels are built once per instruction-set level. At import the best level that the processor and the operating
system support is loaded; the environment variable ``MFLD_ISA`` names another one and fails loudly where it cannot run.
"""

import importlib
import os
from pathlib import Path


def _is_main_interpreter() -> bool:
    try:
        return bool(importlib.import_module("_thread")._is_main_interpreter())
    except AttributeError:  # before Python 3.13
        interpreters = importlib.import_module("_xxsubinterpreters")
        return bool(interpreters.get_current() == interpreters.get_main())


if not _is_main_interpreter():  # where the binding would wait for ever for a lock of the main one
    raise ImportError("mfld runs in the main interpreter alone, and this is a sub-interpreter: start a process")

from . import _binding  # noqa: E402
from ._binding import (  # noqa: E402
    Backend,
    Domain,
    Dynamics,
    Estimator,
    Loss,
    Network,
    PairKernel,
    Ranks,
    Report,
)

__all__ = [
    "Backend",
    "Domain",
    "Dynamics",
    "Estimator",
    "Loss",
    "Network",
    "PairKernel",
    "Ranks",
    "Report",
    "__version__",
    "available_levels",
    "backend",
    "built_levels",
    "load",
    "processor_has_bfloat16",
]

__version__: str = _binding.__version__

_BEST_FIRST = ("native", "v4", "v3", "base")
_PREFIX = "_kernels_"


def built_levels() -> dict[str, str]:
    """Paths of the kernel builds of this installation, by level."""
    # Beside the binding and not beside this file: they differ in an editable install.
    folder = Path(_binding.__file__).parent
    return {path.stem[len(_PREFIX) :]: str(path) for path in sorted(folder.glob(_PREFIX + "*.so"))}


def available_levels() -> list[str]:
    """Levels that are built and that this processor runs, best first."""
    built = built_levels()
    return [level for level in _BEST_FIRST if level in built and _binding.cpu_runs(level)]


def load(level: str | None = None) -> Backend:
    """Load the kernels of one level; by default that of ``MFLD_ISA``, else the best one."""
    built = built_levels()
    level = level or os.environ.get("MFLD_ISA") or None
    if level is None:
        available = available_levels()
        if not available:
            raise ImportError(f"mfld: no build of the kernels runs on this processor; built: {sorted(built)}")
        level = available[0]
    elif level not in built:
        raise ImportError(f"mfld: MFLD_ISA={level!r} is not among the built levels {sorted(built)}")
    elif not _binding.cpu_runs(level):
        lacks = ", ".join(_binding.missing_features(level))
        raise ImportError(f"mfld: MFLD_ISA={level!r} is built, but this processor does not run it: it lacks {lacks}")
    return Backend(built[level])


backend: Backend = load()

processor_has_bfloat16: bool = _binding.cpu_runs("bfloat16")

# A child of fork() hangs in OpenMP when its parent has a pool of threads: give the pool back first.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=backend.pause)
