"""mfld, through its public interface."""

from __future__ import annotations

from typing import Any

import numpy as np
from cases import SCHEDULE, Problem, Schedule
from numpy.typing import NDArray

import mfld

ACTIVATIONS = mfld.activations()
SEED = 0


class Network:
    def __init__(self, problem: Problem, tune: bool) -> None:
        case = problem.case
        model = mfld.TwoLayerNetwork(case.n_features, n_outputs=case.n_outputs, activation=case.activation)
        self._risk = mfld.EmpiricalRisk(model, problem.inputs, problem.targets, loss=case.loss, l2=problem.l2)
        self._problem = problem
        self._threads = case.threads
        self._solver = self._make_solver(SCHEDULE)
        self.choice = f"num_threads={self._threads}"
        self.reset()

    def _make_solver(self, schedule: Schedule) -> mfld.MFLD:
        case = self._problem.case
        return mfld.MFLD(
            case.n_particles,
            step_size=schedule.step_size,
            temperature=schedule.temperature,
            gradient=mfld.Minibatch(case.batch_size) if case.batch_size else mfld.FullBatch(),
            dtype=case.dtype,
            num_threads=self._threads,
        )

    def reset(self) -> None:
        self._state = self._solver.init(self._risk, seed=SEED, particles=self._problem.particles)

    def run(self, n_steps: int, schedule: Schedule = SCHEDULE, rows: NDArray[np.int64] | None = None) -> None:
        # Its rows are a function of the seed: the check asks for them and gives them to the others.
        solver = self._solver if schedule is SCHEDULE else self._make_solver(schedule)
        self._state, _ = solver.advance(self._risk, self._state, n_steps)

    def particles(self) -> NDArray[Any]:
        return self._state.particles


class Normals:
    """`mfld.noise.normals`, which takes as many threads as OpenMP would."""

    def __init__(self, problem: Problem) -> None:
        self._case = problem.case
        self._step = 0
        from threadpoolctl import ThreadpoolController  # noqa: PLC0415  only this case needs it

        self._pools = ThreadpoolController()
        self.choice = "Philox4x32-10, Box-Muller"

    def run(self, n_steps: int) -> None:
        case = self._case
        with self._pools.limit(limits=case.threads, user_api="openmp"):
            for _ in range(n_steps):
                self._values = mfld.noise.normals(SEED, self._step, case.n_particles, case.n_features, dtype=case.dtype)
                self._step += 1

    def values(self) -> NDArray[Any]:
        return self._values
