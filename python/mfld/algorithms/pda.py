"""Particle dual averaging."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from mfld import _core, noise, schedules, validation
from mfld.algorithms.base import Algorithm
from mfld.algorithms.replicates import advance_each, start
from mfld.certificates import smallest_ridge
from mfld.dynamics import Dynamics, Overdamped
from mfld.errors import DivergenceError
from mfld.gradients import FullBatch
from mfld.noise import Place
from mfld.objectives import EmpiricalRisk, Objective, Potential, StreamRisk
from mfld.schedules import Scheduled
from mfld.state import Buffers, Cloud, Info, State
from mfld.stepping import Outcome, Plan, steps
from mfld.validation import FloatArray


@dataclass(frozen=True)
class PDA(Algorithm):
    """Particle dual averaging: Langevin chains on the weighted average of all potentials seen so far.

    Step t = 1, 2, ... (the run's step count plus 1) draws rows I of the samples, takes the loss derivatives there and
    adds them, with weight t, to the averaged potential; then every particle makes ``inner_steps`` Langevin steps on it,
    without interaction::

        g_t(theta)  = (1 / B) * sum_{i in I} n s_i l'(f_mu(z_i), y_i) h(theta, z_i) + l2 |theta|**2
        gbar_t      = 2 / ((t + 1) (t + 2)) * sum_{s <= t} s g_s
        particles  ~  exp(-gbar_t / temperature), approximately

    so that the ridge in force is ``l2 * t / (t + 2)``. The average is kept as one coefficient per sample and output,
    and samples that were never drawn cost nothing. On a `StreamRisk`, where I are B new samples and n s_i is 1, the
    samples are kept too, up to the capacity of the stream. The objective falls like 1 / t, up to 1 / sqrt(N) and the
    error of the inner loop; with the full batch faster. Source: Nitanda, Wu, Suzuki 2021, "Particle dual averaging:
    optimization of mean field neural networks with global convergence rate analysis".

    Parameters
    ----------
    n_particles : int
        N.
    step_size : float or Schedule or callable
        Of the inner dynamics, against the outer step t - 1. The paper's, which divides the drift by the temperature,
        is ``temperature`` times this one.
    temperature : float
        Positive.
    inner_steps : int or Schedule or callable
        Steps of the inner dynamics in each outer step, rounded. Chains start where they were: a fixed number suffices
        where the potential changes slowly; the theory lets it grow like t**2.
    batch_size : int, optional
        B; None for all samples, of which a stream has no number.
    dynamics : Dynamics
        Of the inner loop: `Overdamped` or another one without buffers.
    dtype, num_threads, n_replicates
        As in `MFLD`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; during a run, if an averaged potential has no Gibbs
        measure, which neurons that are not bounded may lead to where l2 is small.

    Notes
    -----
    The state's buffers: ``dual_sum``, the coefficients ``sum_s s * l'``, shape (R, n, n_outputs), and ``dual_weight``,
    the sum of the factors with which each sample was seen, shape (R, n, 1), so that their quotient is the average of
    the sample's derivatives; ``inner_steps``, how many were made; ``output``, the particles of a random step, drawn
    with probability proportional to t, for which the theory holds (`Result.state` has those of the last step). Of a
    stream, instead of the first two, ``kept_inputs`` of the J samples seen, shape (R, J, n_features), and ``kept_sum``,
    their ``s * l' / B``, shape (R, J, n_outputs).

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> inputs = np.linspace(-2, 2, 50)[:, np.newaxis]
    >>> model = mfld.TwoLayerNetwork(n_features=1, readout="bounded", readout_bound=5.0)
    >>> risk = mfld.EmpiricalRisk(model, inputs, np.sin(inputs[:, 0]), loss="half_squared", l2=1e-2)
    >>> solver = mfld.PDA(n_particles=200, step_size=0.2, temperature=1e-3, inner_steps=50)
    >>> result = solver.run(risk, n_steps=200)
    >>> bool(risk.loss(result.particles) < 0.05)
    True
    """

    n_particles: int = 1000
    _: KW_ONLY
    step_size: Scheduled
    temperature: float
    inner_steps: Scheduled = 10
    batch_size: int | None = None
    dynamics: Dynamics = field(default_factory=Overdamped)
    dtype: DTypeLike = "float32"
    num_threads: int | None = None
    n_replicates: int = 1

    has_dual: ClassVar[bool] = True

    def __post_init__(self) -> None:
        inner_steps = self.inner_steps
        if not isinstance(inner_steps, schedules.Schedule) and not callable(inner_steps):
            inner_steps = validation.integer("inner_steps", inner_steps, 1)
        checked = {
            "n_particles": validation.integer("n_particles", self.n_particles, 1),
            "step_size": schedules.check("step_size", self.step_size, positive=True),
            "temperature": validation.real("temperature", self.temperature, positive=True),
            "inner_steps": inner_steps,
            "dtype": validation.float_dtype("dtype", self.dtype).name,
            "n_replicates": validation.integer("n_replicates", self.n_replicates, 1),
        }
        if self.batch_size is not None:
            checked["batch_size"] = validation.integer("batch_size", self.batch_size, 1)
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        validation.instance("dynamics", self.dynamics, Dynamics, "a Dynamics, like Overdamped()")
        if self.dynamics.buffer_names:
            raise ValueError(f"dynamics must carry nothing from step to step, like Overdamped(), got {self.dynamics}")
        validation.num_threads(self.num_threads)

    def init(
        self, objective: Objective, seed: int = 0, particles: ArrayLike | None = None, *, replica: int = 0
    ) -> State:
        """State before the first step; arguments as in `MFLD.init`."""
        self.check(objective)
        seed, replica = validation.seed(seed), validation.seed(replica, "replica")
        places = [noise.initial(seed, replica + r, self.num_threads) for r in range(self.n_replicates)]
        particles = start(objective, particles, self.n_replicates, self.n_particles, self.dtype, places)
        seen = self._seen(objective)
        nothing = {
            name: np.zeros((self.n_replicates, seen.n_first, width), dtype)
            for name, (width, dtype) in seen.widths().items()
        }
        buffers = {
            **nothing,
            "inner_steps": np.zeros(self.n_replicates, np.int64),
            "output": particles,
        }
        return State({"mu": Cloud(particles)}, step=0, seed=seed, buffers=buffers, replica=replica)

    def advance(self, objective: Objective, state: State, n_steps: int = 1) -> tuple[State, Info]:
        """Make outer steps; arguments and errors as in `MFLD.advance`.

        An interrupt is answered between inner steps; the state that it carries is the one before the outer step.
        """
        self.check(objective, state)
        n_steps = validation.integer("n_steps", n_steps, 0, validation.MAX_STEP - state.step)
        seen = self._seen(objective)
        seen.check_steps(state, n_steps)
        return advance_each(lambda single: self._step(seen, single), state, n_steps)

    def check(self, objective: Objective, state: State | None = None) -> None:
        seen = self._seen(objective)
        if objective.l2 == 0:
            raise ValueError("l2 of the objective must be positive: without a ridge the Gibbs measure does not exist")
        self.dynamics.check(seen.example(), FullBatch())
        self.dynamics.check_space(objective)
        if state is None:
            return
        state = self._first_replicate(objective, state, self.dtype)
        for name, (width, _) in seen.widths().items():
            if name not in state.buffers:
                raise ValueError(
                    f"state must come from a PDA on {type(objective).__name__} data: it has no buffer {name}"
                )
            expected = (1, seen.n_rows(state), width)
            validation.shape(f"state.buffers[{name!r}]", state.buffers[name], expected, "to suit the objective")

    def dual(self, objective: Objective, state: State) -> FloatArray:
        """Averages over the steps, weighted like in the potential, of each sample's derivatives.

        The measure that the theory speaks of belongs to them, and they do not fluctuate like those of one cloud.
        Samples that were not drawn yet have the derivatives at the cloud.
        """
        if "dual_weight" not in state.buffers:
            return super().dual(objective, state)
        total, weight = (state.buffers[name].sum(axis=0) for name in ("dual_sum", "dual_weight"))
        seen = weight[:, 0] > 0
        if seen.all():
            return np.asarray(total / weight)
        derivative = super().dual(objective, state)
        derivative[seen] = total[seen] / weight[seen]
        return derivative

    def certified(self, objective: Objective, info: Info) -> tuple[float, float]:
        return self.temperature, objective.l2  # the ridge of the last step is that of the average, on its way

    def check_steps(self, objective: Objective, state: State, n_steps: int) -> None:
        """Refuse a run for which a stream's capacity is too small."""
        self._seen(objective).check_steps(state, n_steps)

    def potential(self, objective: EmpiricalRisk | StreamRisk, state: State) -> Potential:
        """The averaged potential ``gbar_t`` of a state of one replicate after t >= 1 steps, its ridge included."""
        _ = state.only_cloud  # of one replicate
        if state.step == 0:
            raise ValueError("state must have made a step: before the first one nothing is averaged")
        return _average(self._seen(objective), state.buffers, state.step)

    def _seen(self, objective: Objective) -> _SeenData | _SeenStream:
        """Record of an objective's samples; refuses one whose samples this solver cannot draw."""
        kinds = EmpiricalRisk, StreamRisk
        validation.instance("objective", objective, kinds, "an EmpiricalRisk or a StreamRisk")
        if objective.n_samples is None:
            return _SeenStream(cast(StreamRisk, objective), self)
        return _SeenData(cast(EmpiricalRisk, objective), self)

    def _step(self, seen: _SeenData | _SeenStream, state: State) -> tuple[State, Info]:
        t = state.step + 1
        added, loss = seen.add(state)
        buffers = {**state.buffers, **added}
        averaged = _average(seen, buffers, t)

        inner = max(1, round(float(schedules.values("inner_steps", self.inner_steps, state.step, 1)[0])))
        done = int(state.buffers["inner_steps"][0])
        plan = Plan(
            step_size=schedules.table("step_size", self.step_size, state.step, 1, positive=True),
            temperature=np.array([[self.temperature]]),
            l2=np.array([[averaged.l2]]),
            gradient=FullBatch(),
            dynamics=self.dynamics,
            places=(Place(state.key, done, 0, validation.num_threads(self.num_threads)),),
        )
        outcome = steps(averaged, state.only_cloud.particles, {}, inner, plan)
        if outcome.interrupt is not None:
            raise outcome.interrupt
        if outcome.bad is not None:
            raise DivergenceError(state.step, outcome.bad[1], plan.step_size.item(), state)
        return self._reached(state, buffers, outcome, done + inner), Info(
            steps=1,
            loss=loss,
            gradient_norm=outcome.gradient_norm[0],
            step_size=plan.step_size.item(),
            temperature=self.temperature,
            l2=averaged.l2,
            acceptance=outcome.acceptance[0],
        )

    def _reached(self, state: State, buffers: Buffers, outcome: Outcome, inner: int) -> State:
        t = state.step + 1
        particles: FloatArray = outcome.particles  # (1, N, p)
        particles.flags.writeable = False
        # Particles after step t are X^(t+1), drawn with a probability proportional to t + 1 among X^(2), ..., X^(t+1):
        # a reservoir, which need not know where the run will end.
        key, counter3 = state.key, t >> 32 | noise.POPULATIONS["output"] << 16
        counter = (0, noise.STREAMS["acceptance"] << 24, t & 0xFFFFFFFF, counter3)
        word = _core.backend.philox(counter, (key & 0xFFFFFFFF, key >> 32))[0]
        chosen = (word + 0.5) / 2**32 < (t + 1) / (t * (t + 3) / 2)
        buffers = {
            **buffers,
            "inner_steps": np.array([inner]),
            "output": particles if chosen else state.buffers["output"],
        }
        return State({"mu": Cloud(particles)}, t, state.seed, buffers, state.replica)


def _average(seen: _SeenData | _SeenStream, buffers: Buffers, t: int) -> Potential:
    """The averaged potential after step t, from the buffers of one replicate; refuses one without a Gibbs measure."""
    risk, dual = seen.frozen(buffers, 2 / ((t + 1) * (t + 2)))
    l2 = seen.risk.l2 * t / (t + 2)
    needed = smallest_ridge(risk, dual)
    if l2 <= needed:
        raise ValueError(
            f"l2 of the objective must be above {needed * (t + 2) / t:.3g} at step {t} of PDA, got {seen.risk.l2:g}: "
            f"the neurons of {risk.model} grow like |theta|**2, and below it the average has no Gibbs measure; "
            "with a bounded activation or readout it always has one"
        )
    return risk.linearised(dual, l2, seen.solver.num_threads)


class _SeenData:
    """Record of an EmpiricalRisk: for each sample the sum of its derivatives and that of their factors."""

    def __init__(self, risk: EmpiricalRisk, solver: PDA) -> None:
        n, batch_size = risk.n_samples, solver.batch_size
        if batch_size is not None and batch_size > n:
            raise ValueError(f"batch_size must be at most the number of samples, {n}, got {batch_size}")
        self.risk, self.solver = risk, solver

    @property
    def n_first(self) -> int:
        """Number of rows of the buffers before the first step."""
        return self.risk.n_samples

    def widths(self) -> dict[str, tuple[int, str]]:
        """Numbers that the buffers have for each sample, and their precision."""
        return {"dual_sum": (self.risk.model.n_outputs, "float64"), "dual_weight": (1, "float64")}

    def n_rows(self, state: State) -> int:
        """Number of samples for which the buffers of a state have a row, or should have."""
        return self.risk.n_samples

    def check_steps(self, state: State, n_steps: int) -> None:
        """Refuse more steps than can be kept; here all can."""

    def add(self, state: State) -> tuple[Buffers, float]:
        """The buffers with the samples of the next step, and the mean loss of that batch."""
        t, n, batch_size = state.step + 1, self.risk.n_samples, self.solver.batch_size
        rows = None if batch_size is None else _core.backend.batch(state.key, state.step, n, batch_size)
        # In float64: averages of derivatives rounded to float32 may lie outside of the conjugate's domain.
        particles = state.particles.astype(np.float64)
        derivative, loss = self.risk.on_threads(self.solver.num_threads).derivative(particles, rows)
        sums, weights = (np.array(state.buffers[name]) for name in ("dual_sum", "dual_weight"))
        drawn, factor = (slice(None), t) if rows is None else (rows, t * n / len(rows))
        sums[:, drawn] += factor * derivative
        weights[:, drawn] += factor
        return {"dual_sum": sums, "dual_weight": weights}, loss

    def frozen(self, buffers: Buffers, scale: float) -> tuple[EmpiricalRisk, FloatArray]:
        """A risk and dual variables whose potential is the one of what was seen, times the scale."""
        return self.risk, scale * buffers["dual_sum"][0]

    def example(self) -> Potential:
        """A potential of the kind that the dynamics meets."""
        return self.risk.linearised(np.zeros((self.risk.n_samples, self.risk.model.n_outputs)))


class _SeenStream:
    """Record of a StreamRisk: the samples seen, each with its coefficient; methods as in `_SeenData`."""

    def __init__(self, risk: StreamRisk, solver: PDA) -> None:
        if solver.batch_size is None:
            raise ValueError("batch_size must be given for a StreamRisk, which never has all samples, got None")
        if risk.data.capacity is None:
            raise ValueError("capacity of the StreamRisk must be given for PDA, which keeps the samples, got None")
        self.risk, self.solver, self.batch_size, self.capacity = risk, solver, solver.batch_size, risk.data.capacity

    n_first = 0

    def widths(self) -> dict[str, tuple[int, str]]:
        model = self.risk.model
        return {
            "kept_inputs": (model.n_features, np.dtype(self.solver.dtype).name),
            "kept_sum": (model.n_outputs, "float64"),
        }

    def n_rows(self, state: State) -> int:
        return len(state.buffers["kept_inputs"][0])

    def check_steps(self, state: State, n_steps: int) -> None:
        kept, capacity = self.n_rows(state), self.capacity
        needed = kept + n_steps * self.batch_size
        if n_steps > 0 and needed > capacity:
            fit = max(0, capacity - kept) // self.batch_size
            raise ValueError(
                f"n_steps must be at most {fit} here, got {n_steps}: the StreamRisk has capacity={capacity}, the "
                f"state keeps {kept} samples, and each step adds batch_size={self.batch_size}: this run takes "
                f"capacity={needed}"
            )

    def add(self, state: State) -> tuple[Buffers, float]:
        batch = self.risk.batch(state.step, self.batch_size).on_threads(self.solver.num_threads)
        derivative, loss = batch.derivative(state.particles)
        coefficients = (state.step + 1) / self.batch_size * derivative.astype(np.float64)
        added = {"kept_inputs": batch.inputs, "kept_sum": coefficients}
        return {
            name: np.concatenate([kept, added[name][np.newaxis].astype(kept.dtype)], axis=1)
            for name, kept in state.buffers.items()
            if name in added
        }, loss

    def frozen(self, buffers: Buffers, scale: float) -> tuple[EmpiricalRisk, FloatArray]:
        return self.risk.frozen(buffers["kept_inputs"][0], scale * buffers["kept_sum"][0])

    def example(self) -> Potential:
        model = self.risk.model
        risk, dual = self.risk.frozen(np.zeros((1, model.n_features)), np.zeros((1, model.n_outputs)))
        return risk.linearised(dual, self.risk.l2)
