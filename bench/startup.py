"""What a program pays before and around the steps: importing, the first call, a call on a problem of nearly no work.

    python bench/startup.py

Each figure is the best of some repetitions, in processor time of the calling thread, with one thread.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

STEPS = 2000  # so many that what a call costs once does not count
IMPORT = """
import time, numpy
begin = time.process_time()
import mfld
imported = time.process_time()
mfld.MFLD, mfld.EmpiricalRisk, mfld.TwoLayerNetwork
print(imported - begin, time.process_time() - imported)
"""
FIRST_CALL = """
import sys; sys.path[:0] = {path!r}
import startup
print(*startup.ten_calls())
"""


def best(measure: Callable[[], float], repetitions: int) -> float:
    return min(measure() for _ in range(repetitions))


def in_new_process(program: str) -> list[float]:
    out = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    return [float(word) for word in out.split()]


def problem(particles: int, samples: int, features: int) -> Callable[[int], float]:
    """A function that makes some steps through the public API and returns how long they took."""
    import mfld  # noqa: PLC0415  importing is one of the things that are timed

    inputs = np.random.default_rng(0).standard_normal((samples, features), np.float32)
    risk = mfld.EmpiricalRisk(
        mfld.TwoLayerNetwork(features), inputs, np.tanh(inputs[:, 0]), loss="half_squared", l2=0.1
    )
    solver = mfld.MFLD(particles, step_size=1e-3, temperature=1e-4, dtype="float32", num_threads=1)
    state = solver.init(risk, seed=0)

    def run(n_steps: int) -> float:
        begin = time.thread_time()
        solver.advance(risk, state, n_steps)
        return time.thread_time() - begin

    return run


def core_call(particles: int, samples: int, features: int) -> Callable[[int], float]:
    """The same without the Python layer: what that passes on is recorded, and called again."""
    import mfld._core  # noqa: PLC0415

    recorded: list[tuple[Any, ...]] = []

    class Recorder:
        def __getattr__(self, name: str) -> Any:
            return getattr(backend, name)

        def advance(self, *arguments: Any) -> Any:
            recorded.append(tuple(a.copy() if isinstance(a, np.ndarray) else a for a in arguments))
            return backend.advance(*arguments)

    backend = mfld._core.backend
    mfld._core.backend = Recorder()
    runs = {}
    try:
        run = problem(particles, samples, features)
        for n_steps in (1, STEPS):
            run(n_steps)
            runs[n_steps] = recorded[-1]
    finally:
        mfld._core.backend = backend

    def run_core(n_steps: int) -> float:
        begin = time.thread_time()
        backend.advance(*runs[n_steps])
        return time.thread_time() - begin

    return run_core


def beyond_arithmetic(run: Callable[[int], float]) -> float:
    """What one call costs besides its one step."""
    step = best(lambda: run(STEPS), 20) / STEPS
    return best(lambda: run(1), 500) - step


def ten_calls() -> list[float]:
    run = problem(1000, 1000, 10)
    return [run(1) for _ in range(10)]


def main() -> None:
    in_new_process(IMPORT)  # so that there is byte code, where Python may write it
    imports = [in_new_process(IMPORT) for _ in range(7)]
    print(f"import mfld beyond NumPy:       {1e3 * min(i[0] for i in imports):8.0f} ms")
    print(f"MFLD on a risk beyond that:     {1e3 * min(i[1] for i in imports):8.0f} ms")
    calls = [in_new_process(FIRST_CALL.format(path=[sys.path[0]])) for _ in range(5)]
    print(f"first call (1000x1000x10):      {1e6 * min(c[0] for c in calls):8.0f} us")
    print(f"tenth call:                     {1e6 * min(c[9] for c in calls):8.0f} us")
    tiny = (16, 20, 1)
    print(f"_core.advance beyond its step:  {1e6 * beyond_arithmetic(core_call(*tiny)):8.2f} us")
    print(f"MFLD.advance beyond its step:   {1e6 * beyond_arithmetic(problem(*tiny)):8.2f} us")


if __name__ == "__main__":
    main()
