"""Fixtures that several files of tests share."""

import os
import signal

import numpy as np
import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # A worker a core: more threads would wait for each other. Tests that need two ask for them.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

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


def pytest_addoption(parser):
    parser.addoption("--run-slow", action="store_true", help="run the tests that are marked as slow, too")


def pytest_configure(config):
    # Shells start what is in the background with Ctrl-C ignored, and tests that interrupt a run would wait for ever.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "slow: takes too long for every day; run with --run-slow")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--run-slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: run with --run-slow"))
