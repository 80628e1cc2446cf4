"""mfld, through its public interface."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from cases import DUAL_TEMPERATURE, FRICTION, SCHEDULE, Problem, Schedule
from check import ANCHORED_STEP
from numpy.typing import NDArray

import mfld

ACTIVATIONS = mfld.activations()
ESTIMATORS = ("plain", "svrg", "sarah")
SEED = 0


class Network:
    def __init__(self, problem: Problem, tune: bool) -> None:
        case = problem.case
        model = mfld.TwoLayerNetwork(case.n_features, n_outputs=case.n_outputs, activation=case.activation)
        self._risk = mfld.EmpiricalRisk(model, problem.inputs, problem.targets, loss=case.loss, l2=problem.l2)
        self._problem = problem
        self._threads = case.threads
        self._step, self._buffers = 0, {}
        if problem.anchor is not None:
            self._step = ANCHORED_STEP
            anchored = (
                problem.anchor,
                self._risk.loss_gradient(problem.anchor),
                model.predict(problem.anchor, problem.inputs).reshape(case.n_samples, -1),
            )
            names = {"svrg": mfld.SVRG, "sarah": mfld.SARAH}[case.estimator].buffer_names
            self._buffers = {name: array[np.newaxis] for name, array in zip(names, anchored, strict=False)}
        if case.dynamics == "baoab":
            self._buffers["velocities"] = np.zeros_like(problem.particles)[np.newaxis]
        self._solver = self._make_solver(SCHEDULE)
        self.choice = f"num_threads={self._threads}"
        self.reset()

    def _make_solver(self, schedule: Schedule) -> mfld.MFLD:
        case = self._problem.case
        never = 2**40  # a refresh beyond all steps
        gradient: mfld.GradientEstimator = mfld.FullBatch()
        if case.estimator == "svrg":
            gradient = mfld.SVRG(case.batch_size, never)
        elif case.estimator == "sarah":
            gradient = mfld.SARAH(case.batch_size, never)
        elif case.batch_size:
            gradient = mfld.Minibatch(case.batch_size)
        return mfld.MFLD(
            case.n_particles,
            step_size=schedule.step_size,
            temperature=schedule.temperature,
            gradient=gradient,
            dynamics=mfld.Underdamped(FRICTION) if case.dynamics == "baoab" else mfld.Overdamped(),
            dtype=case.dtype,
            num_threads=self._threads,
        )

    def reset(self) -> None:
        start = self._solver.init(self._risk, seed=SEED, particles=self._problem.particles)
        self._state = dataclasses.replace(start, step=self._step, buffers=self._buffers)

    def run(self, n_steps: int, schedule: Schedule = SCHEDULE, rows: NDArray[np.int64] | None = None) -> None:
        # Its rows are a function of the seed: the check asks for them and gives them to the others.
        solver = self._solver if schedule is SCHEDULE else self._make_solver(schedule)
        self._state, _ = solver.advance(self._risk, self._state, n_steps)

    def particles(self) -> NDArray[Any]:
        return self._state.particles


class Descent:
    """`MMD` without noise."""

    def __init__(self, problem: Problem, tune: bool) -> None:
        self._problem = problem
        kernel = mfld.kernels.Gaussian(float(np.sqrt(problem.case.n_features)))
        self._objective = mfld.MMD(problem.inputs, kernel)
        self.choice = f"num_threads={problem.case.threads}"
        self._solver = self._make_solver(SCHEDULE)
        self.reset()

    def _make_solver(self, schedule: Schedule) -> mfld.MFLD:
        case = self._problem.case
        return mfld.MFLD(
            case.n_particles,
            step_size=schedule.step_size,
            temperature=0.0,
            dtype=case.dtype,
            num_threads=case.threads,
        )

    def reset(self) -> None:
        self._state = self._solver.init(self._objective, seed=SEED, particles=self._problem.particles)

    def run(self, n_steps: int, schedule: Schedule = SCHEDULE, rows: NDArray[np.int64] | None = None) -> None:
        solver = self._solver if schedule is SCHEDULE else self._make_solver(schedule)
        self._state, _ = solver.advance(self._objective, self._state, n_steps)

    def particles(self) -> NDArray[Any]:
        return self._state.particles


class DualAscent:
    """`PSDCA` that never refreshes its particles."""

    def __init__(self, problem: Problem, tune: bool) -> None:
        case = problem.case
        model = mfld.TwoLayerNetwork(case.n_features, activation=case.activation, readout="bounded")
        self._risk = mfld.EmpiricalRisk(model, problem.inputs, problem.targets, loss=case.loss, l2=problem.l2)
        self._solver = mfld.PSDCA(
            case.n_particles,
            temperature=DUAL_TEMPERATURE,
            order="cyclic",
            refresh_every=2**60,
            effective_sample_size=1e-12,
            dtype=case.dtype,
            num_threads=case.threads,
        )
        self._particles = problem.particles
        self.choice = f"num_threads={case.threads}"
        self.reset()

    def reset(self) -> None:
        # init would move the particles; the cases start from any, and from dual variables 0.
        n, m = self._risk.n_samples, len(self._particles)
        buffers = {
            "dual": np.zeros((1, n, 1)),
            "log_weights": np.zeros((1, m)),
            "log_partition": np.zeros(1),
            "sampler_step_size": np.full(1, np.nan),
            "sampler_moves": np.zeros(1, np.int64),
            "visits": np.zeros(1, np.int64),
            "variance_bound": np.full(1, np.nan),
        }
        self._state = mfld.State({"mu": mfld.Cloud(self._particles[np.newaxis])}, 0, SEED, buffers)

    def run(self, n_steps: int) -> None:
        self._state, _ = self._solver.advance(self._risk, self._state, n_steps)

    def dual(self) -> NDArray[Any]:
        return self._state.buffers["dual"][0, :, 0]

    def log_weights(self) -> NDArray[Any]:
        return self._state.buffers["log_weights"][0]


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
