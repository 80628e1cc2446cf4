"""Fixtures that several files of tests share."""

import numpy as np
import pytest

from mfld import _core

LEVELS = {level: _core.load(level) for level in _core.available_levels()}


@pytest.fixture(params=LEVELS)
def level(request, monkeypatch):
    """Each instruction-set level that this machine runs, one after the other, as the kernels of the whole library."""
    monkeypatch.setattr(_core, "backend", LEVELS[request.param])
    return request.param


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture
def rng():
    return np.random.default_rng(2718281828)
