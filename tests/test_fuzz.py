"""Calls of the public parts at random (tests/fuzz.py), that what is wrong is seen, and many calls in one process."""

import sys

import numpy as np
import pytest

import fuzz
import soak


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_random_calls_are_right_or_refused():
    assert fuzz.search(3000, seed=7_000_000) == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("call", "count"), [(soak.run, 6000), (soak.fit, 1000)])
def test_nothing_is_left_behind(call, count):
    grown, opened = soak.growth(call, count)
    assert opened <= 0
    assert grown < 2_000_000


def divides(size):
    return 1 / size


def holds_nothing(size):
    return np.array([np.nan, size])


def waits(size):
    while True:
        pass


@pytest.mark.parametrize(
    ("call", "wrong"),
    [(divides, "ZeroDivisionError"), (holds_nothing, "NaN in (2,)"), (waits, "TooSlowError"), (lambda size: size, "")],
)
def test_what_is_wrong_is_seen(call, wrong, monkeypatch):
    monkeypatch.setattr(fuzz, "CALLS", {"call": (call, {"size": 1.0})})
    monkeypatch.setattr(fuzz, "SECONDS", 1)
    monkeypatch.setattr(fuzz, "check_works", lambda answer: None)
    monkeypatch.setattr(fuzz, "changed", lambda name, value, chance: 0.0)
    found = fuzz.search(1)
    assert (wrong in found[0]) if wrong else not found
