"""Memory that is not there, at each allocation in turn: MemoryError, nothing changed or leaked, the same bytes after.

`failing_malloc.c` is compiled and put before the C library's allocator in a process of its own, which calls `refused`.
The kernels without Python around them are tested in `cpp/test_memory.cpp`.
"""

import ctypes
import functools
import gc
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import mfld
import test_bits
import test_threads
from mfld import _core, thinning
from mfld.privacy import secret

HERE = Path(__file__).parent
COMPILER = shutil.which(os.environ.get("CC", "cc"))

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or COMPILER is None or "CS_GNU_LIBC_VERSION" not in os.confstr_names,
    reason="Linux, the GNU C library and a C compiler",
)


# ---- the process whose memory fails ----------------------------------------------------------------------------------


class Allocator:
    """That of this process."""

    def __init__(self):
        library = ctypes.PyDLL(None)
        self._arm, self._disarm, self.alive = library.failing_arm, library.failing_disarm, library.failing_alive
        self._arm.argtypes = [ctypes.c_long, ctypes.c_int]
        self._disarm.restype = self.alive.restype = ctypes.c_long

    def until_enough(self, call, whole, every_one):
        """What a call returns that finds all its memory, and how many came before it that did not.

        `whole`: all that follow one that fails fail too. Of those after the first 6, single ones if not `every_one`.
        """
        left = 0
        for misses in range(100_000):
            self._arm(left, whole)
            try:
                found, missed = call(), False
            except MemoryError:
                found, missed = None, True
            finally:
                refusals = self._disarm()
            if not refusals:
                assert not missed
                return found, misses
            left += 1 if every_one else 1 + left // 6
        raise AssertionError("a call asks for memory without end")


def refused(every_one):
    """Each call without its memory, then with it; prints how often each missed it, and whether it leaks."""
    warnings.simplefilter("ignore")
    allocator = Allocator()
    for name, call in calls().items():
        for _ in range(2):
            expected = numbers(call())  # the second time nothing is made that stays, such as a table of constants
        for whole in (False, True):
            grown, alive = True, None
            for _ in range(5):
                found, misses = allocator.until_enough(call, whole, every_one)
                assert numbers(found) == expected, name
                found = None
                gc.collect()
                before, alive = alive, allocator.alive()
                if before is not None and alive <= before:
                    grown = False  # a leak is in every round; a list that Python keeps grows at times
                    break
            assert numbers(call()) == expected, name
            print(name, misses, grown, sep="\t")


# ---- what is called --------------------------------------------------------------------------------------------------


def rows(n, n_columns):
    return np.random.default_rng(0).uniform(-1, 1, (n, n_columns)).astype("float32")


def kernels():
    """Calls of the core that no run makes."""
    core, network = _core.backend, mfld.TwoLayerNetwork(2).native
    loss = _core.Loss(mfld.losses().index("logistic"), 0.0)
    pairs = thinning.in_core(mfld.kernels.Gaussian(1.0), 2)
    x, z, g = rows(65, 4), rows(23, 2), rows(23, 1)
    points, weights, square, factor = rows(100, 2), rows(100, 1)[:, 0] ** 2, rows(64, 2), rows(30, 20)
    place, numbers = (7, 3), ([0.0, 1e-3, 0.0], 3, [0], 0, 0)

    def advance_pairs():
        moved = points[np.newaxis].copy()
        core.advance_pairs(pairs, 1.0, pairs, 1.0, moved, 2, points, None, *numbers, 2)
        return moved

    def risk_along():
        value, gradient, kept = core.risk_at(network, loss, x, z, np.sign(g), None, 2)
        return value, gradient, core.risk_along(network, loss, x, z, np.sign(g), None, kept, gradient, 2)

    def halved():
        return core.thinning_split(pairs, points, np.arange(100), 1, 0, *place, 0, 2)

    return {
        "advance_pairs": advance_pairs,
        "chacha": lambda: core.chacha(bytes(32), 1000),
        "gaussian_means": lambda: core.gaussian_means([1.0, 1.0], points, points, None, 2),
        "gaussians": lambda: core.gaussians(bytes(32), 1000, *secret._table(), 2),
        "pair_pull_back": lambda: core.pair_pull_back(pairs, points, points, points, None, 1.0, 2),
        "pair_stein": lambda: core.pair_stein(pairs, points, points, points, points, None, True, 2),
        "pair_sums": lambda: core.pair_sums(pairs, points, points, weights, True, 2),
        "product": lambda: core.product(factor, rows(20, 3), False, 2),
        "pull_back_both": lambda: core.pull_back_both(network, x, None, z, g, 2),
        "pull_back_clipped": lambda: core.pull_back_clipped(network, loss, x, z, np.sign(g), [10, 23], 1.0, 2),
        "pull_back_inputs": lambda: core.pull_back_inputs(network, x, None, z, g, 2),
        "ridge_solve": lambda: core.ridge_solve(factor, 1.0, rows(30, 2), 2),
        "risk_along": risk_along,
        "thinning_compress": lambda: core.thinning_compress(pairs, square, np.arange(64), 1, *place, 0, 2),
        "thinning_refine": lambda: core.thinning_refine(pairs, points, *halved(), 3, 2),
        "thinning_split": halved,
        "uniforms": lambda: core.uniforms(*place, 33, 3, np.dtype("float64"), 1, 0, 2),
    }


def runs():
    """Runs from a state, by name: the objects are there before, and used again after a failure."""
    parts = [("risk", estimator, "overdamped") for estimator in test_threads.ESTIMATORS]
    parts += [("risk", "svrg", "baoab"), ("risk", "minibatch", "preconditioned"), ("sphere", "full", "overdamped")]
    parts += [("potential", "full", "mala"), ("potential", "full", "baoab"), ("neurons", "minibatch", "overdamped")]
    objectives = {kind: test_threads.OBJECTIVES[kind]() for kind, _, _ in parts}
    solvers = {
        ", ".join(names): (test_threads.settings(objectives[names[0]], *names[1:], num_threads=2), objectives[names[0]])
        for names in parts
    }
    solvers |= {name: (make(2), objectives["risk"]) for name, make in test_threads.ALGORITHMS.items()}
    return {name: (solver, objective, solver.init(objective, seed=1)) for name, (solver, objective) in solvers.items()}


def calls():
    """Calls of the public parts and of the core, by name."""

    def run(solver, objective, start):
        return [solver.run(objective, 3, state=start).state, start]  # which must not have changed

    risk = test_threads.risk()
    particles = risk.initial_particles(33, 3)
    return {
        **{name: functools.partial(run, *each) for name, each in runs().items()},
        "step size": lambda: mfld.MFLD(9, temperature=0.1).run(risk, 3).state,
        "value and gradient": lambda: [risk.value(particles), risk.gradient(particles), particles],
        "neurons": lambda: risk.model.neurons(particles, risk.inputs),
        "conjugates and dual steps": lambda: test_bits.conjugates("logistic"),
        "mini-batches": lambda: [mfld.noise.minibatch(3, 4, 1000, n) for n in (7, 400)],
        **kernels(),
    }


def numbers(found):
    """All numbers of an answer, as bytes."""
    if isinstance(found, mfld.State):
        found = test_bits.arrays_of_state(found)
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, (list, tuple)):
        return b"".join(map(numbers, found))
    return np.asarray(found).tobytes()


# ---- tests -----------------------------------------------------------------------------------------------------------


def test_every_kernel_is_called(monkeypatch):
    spy = test_threads.Spy(_core.backend)
    monkeypatch.setattr(_core, "backend", spy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for call in calls().values():
            call()
    assert {name for name, _ in spy.calls} >= set(test_threads.positions())


@pytest.fixture(scope="module")
def allocator(tmp_path_factory):
    path = tmp_path_factory.mktemp("allocator") / "failing_malloc.so"
    subprocess.run([COMPILER, "-O1", "-shared", "-fPIC", HERE / "failing_malloc.c", "-o", path, "-ldl"], check=True)
    return path


@pytest.mark.parametrize("every_one", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_calls_without_memory(allocator, every_one):
    places = [str(HERE), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    done = subprocess.run(
        [sys.executable, "-c", f"import {__name__}; {__name__}.refused({every_one})"],
        env={**os.environ, "LD_PRELOAD": str(allocator), "PYTHONPATH": os.pathsep.join(places)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-3000:]
    outcomes = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(outcomes) == 2 * len(calls())
    assert not [name for name, _, leaks in outcomes if leaks == "True"]
    assert [name for name, misses, _ in outcomes if int(misses) == 0] == ["chacha"] * 2  # which needs none
