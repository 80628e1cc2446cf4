"""Calls of the public parts at random (tests/fuzz.py), and that what is wrong is seen."""

import numpy as np
import pytest

import fuzz


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_random_calls_are_right_or_refused():
    assert fuzz.search(3000, seed=7_000_000) == []


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
