"""Particle dual averaging."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mfld import _core, noise, schedules, validation
from mfld.algorithms.base import Algorithm
from mfld.algorithms.replicates import advance_each, start
from mfld.certificates import smallest_ridge
from mfld.dynamics import Coupled, Dynamics, Overdamped
from mfld.errors import DivergenceError
from mfld.floating import underflow_is_zero
from mfld.gradients import FullBatch
from mfld.noise import Coupling, Place
from mfld.objectives import EmpiricalRisk, Objective, Potential, Risk, StreamRisk
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
        Of the inner loop: `Overdamped`, `MALA`, whose law is exact at any step size since the chains of an inner loop
        do not interact, or another one without buffers.
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
        if self.dynamics.buffer_names and not self.dynamics.starts_anew:
            expected = "carry nothing from step to step, like Overdamped() and MALA()"
            raise ValueError(f"dynamics must {expected}, got {self.dynamics}")
        validation.num_threads(self.num_threads)

    def at_step(self, share: Fraction) -> tuple[PDA, Fraction] | None:
        if not isinstance(self.inner_steps, int) or (self.inner_steps / share).denominator > 1:
            return None  # the outer steps stay, and each has as many inner ones as take the same time
        size = schedules.stretched(self.step_size, Fraction(1), factor=float(share))
        return dataclasses.replace(self, step_size=size, inner_steps=int(self.inner_steps / share)), Fraction(1)

    def coupled(self, couplings: Mapping[int, Coupling]) -> PDA | None:
        return dataclasses.replace(self, dynamics=Coupled(self.dynamics, couplings))

    @underflow_is_zero
    def init(
        self,
        objective: Objective,
        seed: int = 0,
        particles: ArrayLike | None = None,
        *,
        replica: int | Sequence[int] = 0,
    ) -> State:
        """State before the first step; arguments as in `MFLD.init`."""
        self.check(objective)
        seed, replicas = validation.seed(seed), noise.replicas(replica, self.n_replicates)
        places = [noise.initial(seed, number, self.num_threads) for number in replicas]
        particles = start(objective, particles, self.n_replicates, self.n_particles, self.dtype, places)
        risk = self._risk(objective)
        buffers: dict[str, NDArray[Any]] = {
            name: np.zeros((self.n_replicates, risk.n_samples or 0, width), dtype)
            for name, (width, dtype) in risk.record_widths(self.dtype).items()
        }
        buffers |= {"inner_steps": np.zeros(self.n_replicates, np.int64), "output": particles}
        return State({"mu": Cloud(particles)}, step=0, seed=seed, buffers=buffers, replica=replicas)

    @underflow_is_zero
    def advance(self, objective: Objective, state: State, n_steps: int = 1) -> tuple[State, Info]:
        """Make outer steps; arguments and errors as in `MFLD.advance`.

        An interrupt is answered between inner steps; the state that it carries is the one before the outer step.
        """
        validation.instance("state", state, State, "a State")
        self.check(objective, state)
        n_steps = validation.integer("n_steps", n_steps, 0, validation.MAX_STEP - state.step)
        self.check_steps(objective, state, n_steps)
        risk = self._risk(objective)
        return advance_each(lambda single: self._step(risk, single), state, n_steps)

    def check(self, objective: Objective, state: State | None = None) -> None:
        risk = self._risk(objective)
        if not risk.space.flat:
            raise ValueError(f"objective must live in Euclidean space for PDA, got the domain {risk.space.domain}")
        if risk.l2 == 0:
            raise ValueError("l2 of the objective must be positive: without a ridge the Gibbs measure does not exist")
        flat = Potential(np.zeros_like, lambda x: np.zeros(len(x)), space=risk.space, l2=risk.l2)  # like all averages
        self.dynamics.check(flat, FullBatch())
        self.dynamics.check_space(risk)
        if state is None:
            return
        state = self._first_replicate(objective, state, self.dtype)
        for name, (width, _) in risk.record_widths(self.dtype).items():
            if name not in state.buffers:
                raise ValueError(
                    f"state must come from a PDA on {type(objective).__name__} data: it has no buffer {name}"
                )
            expected = (1, risk.n_recorded(state.buffers), width)
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

    def rows_of_a_step(self, objective: Objective) -> int | None:
        return objective.n_samples if self.batch_size is None else self.batch_size

    def certified(self, objective: Objective, info: Info) -> tuple[float, float]:
        return self.temperature, objective.l2  # the ridge of the last step is that of the average, on its way

    def check_steps(self, objective: Objective, state: State, n_steps: int) -> None:
        """Refuse a run for which a stream's capacity is too small."""
        risk, batch_size = self._risk(objective), self.batch_size
        if risk.capacity is None or batch_size is None:
            return  # of data, which have a row each from the start
        kept, capacity = risk.n_recorded(state.buffers), risk.capacity
        needed = kept + n_steps * batch_size
        if n_steps > 0 and needed > capacity:
            fit = max(0, capacity - kept) // batch_size
            raise ValueError(
                f"n_steps must be at most {fit} here, got {n_steps}: the StreamRisk has capacity={capacity}, the "
                f"state keeps {kept} samples, and each step adds batch_size={batch_size}: this run takes "
                f"capacity={needed}"
            )

    def potential(self, objective: EmpiricalRisk | StreamRisk, state: State) -> Potential:
        """The averaged potential ``gbar_t`` of a state of one replicate after t >= 1 steps, its ridge included."""
        _ = state.only_cloud  # of one replicate
        if state.step == 0:
            raise ValueError("state must have made a step: before the first one nothing is averaged")
        return _average(self._risk(objective), state.buffers, state.step)

    def _risk(self, objective: Objective) -> Risk:
        """The objective on this solver's threads; refuses one whose samples it cannot draw or keep."""
        risk = validation.instance("objective", objective, Risk, "an EmpiricalRisk or a StreamRisk")
        n, batch_size = risk.n_samples, self.batch_size
        if n is None and batch_size is None:
            raise ValueError("batch_size must be given for a StreamRisk, which never has all samples, got None")
        if n is None and risk.capacity is None:
            raise ValueError("capacity of the StreamRisk must be given for PDA, which keeps the samples, got None")
        if n is not None and batch_size is not None and batch_size > n:
            raise ValueError(f"batch_size must be at most the number of samples, {n}, got {batch_size}")
        return risk.on_threads(self.num_threads)

    def _step(self, risk: Risk, state: State) -> tuple[State, Info]:
        t = state.step + 1
        place = Place(state.key, state.step, 0, self.num_threads)
        batch = None if self.batch_size is None else risk.draw_batch(place, self.batch_size)
        record, loss = risk.recorded(state.buffers, state.particles, batch, t)
        buffers = {**state.buffers, **record}
        averaged = _average(risk, buffers, t)

        inner = max(1, round(float(schedules.values("inner_steps", self.inner_steps, state.step, 1)[0])))
        done = int(state.buffers["inner_steps"][0])
        plan = Plan(
            step_size=schedules.table("step_size", self.step_size, state.step, 1, positive=True),
            temperature=self.temperature,
            l2=averaged.l2,
            gradient=FullBatch(),
            dynamics=self.dynamics,
            places=(Place(state.key, done, 0, validation.num_threads(self.num_threads)),),
        )
        outcome = steps(averaged, state.only_cloud.particles, {}, inner, plan)
        if outcome.interrupt is not None:
            raise outcome.interrupt
        if outcome.bad is not None:
            raise DivergenceError(state.step, outcome.bad[1], plan.numbers(0)[0], state)
        return self._reached(state, buffers, outcome, done + inner), Info(
            steps=1,
            loss=loss,
            gradient_norm=outcome.gradient_norm[0],
            step_size=plan.numbers(0)[0],
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


def _average(risk: Risk, buffers: Buffers, t: int) -> Potential:
    """The averaged potential after step t, from the buffers of one replicate; refuses one without a Gibbs measure."""
    seen, dual = risk.averaged(buffers, 2 / ((t + 1) * (t + 2)))
    l2 = risk.l2 * t / (t + 2)
    needed = smallest_ridge(seen, dual)
    if l2 <= needed:
        raise ValueError(
            f"l2 of the objective must be above {needed * (t + 2) / t:.3g} at step {t} of PDA, got {risk.l2:g}: "
            f"the neurons of {risk.model} grow like |theta|**2, and below it the average has no Gibbs measure; "
            "with a bounded activation or readout it always has one"
        )
    return seen.linearised(dual, l2, risk.num_threads)
