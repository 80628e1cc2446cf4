"""Mean-field Langevin dynamics."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mfld import bfloat16, noise, schedules, step_size, validation
from mfld.algorithms.base import Algorithm
from mfld.algorithms.replicates import start, together
from mfld.dynamics import Coupled, Dynamics, Overdamped
from mfld.dynamics.base import Numbers
from mfld.dynamics.fuse import Fuse
from mfld.errors import DivergenceError
from mfld.floating import underflow_is_zero
from mfld.gradients import FullBatch, GradientEstimator
from mfld.noise import Coupling, Place
from mfld.objectives import Objective
from mfld.privacy import steps as private_steps
from mfld.schedules import Scheduled
from mfld.state import Cloud, Info, State
from mfld.stepping import Plan, not_in_bfloat16, steps
from mfld.validation import FloatArray

_STEEPEST = "curvature_direction"  # buffer, of some particles: where the last look found it
_CURVATURE = "curvature"  # buffer, shape (1,): the largest of the loss so far, which the automatic step size goes by

_LOOKS = 50  # at further steps, for averages of dual variables
_LEAST_SECRET = 2**32  # of seeds: people guess smaller ones


@dataclass(frozen=True)
class MFLD(Algorithm):
    """Mean-field Langevin dynamics: noisy gradient descent of interacting particles.

    By default, with `Overdamped` dynamics::

        theta <- theta - step_size * b(theta; mu) + sqrt(2 * temperature * step_size) * xi,    xi ~ N(0, I)

    for all particles at once, where mu is their empirical measure and b the gradient in theta of the first variation of
    the objective, ``2 * l2 * theta`` included. In the limit of many particles and small steps it minimises
    ``F(mu) + temperature * Ent(mu)``. Weak order 1: at a finite step the law is off by O(step_size), at N particles by
    O(1/N). Source: Suzuki, Wu, Nitanda 2023, "Convergence of mean-field Langevin dynamics: time and space
    discretization, stochastic gradient, and variance reduction"; Mei, Montanari, Nguyen 2018, "A mean field view of the
    landscape of two-layer neural networks".

    Parameters
    ----------
    n_particles : int
        N.
    step_size : float or Schedule or callable or "fuse", optional
        Positive; the time of one step. Default: automatic, for `Overdamped` and `Underdamped` dynamics, half of the
        largest stable one, which falls where the curvature of the objective grows; `mfld.step_size` says how. "fuse",
        for `Overdamped` on a flat space, goes by distances and gradients, falls like one over the root of the count of
        steps, and makes steps one by one: ``mfld.dynamics.fuse`` has the formula. `Info`, `Result.info` and the history
        show it.
    temperature : float or Schedule or callable
        At least 0; 0 is descent without noise.
    l2 : float or Schedule or callable, optional
        Coefficient of the ridge in place of the objective's. Default: the objective's, and where the temperature is no
        plain number ``objective.l2 * temperature(k) / temperature(0)``, so that annealing leaves the reference measure
        N(0, temperature / (2 l2)) as it is.
    gradient : GradientEstimator
        `FullBatch`, `Minibatch`, `SVRG`, `SARAH`, or one of your own.
    dynamics : Dynamics
        How a step moves particles.
    dtype : {"float32", "float64", "bfloat16"}
        Precision of the particles and of all that is computed on them. Without noise float32 loses what a step changes
        by less than 6e-8 of a coordinate, a small ridge for one: take float64 for temperature 0 then. "bfloat16" is
        float32 but for the factors of the products of particles and data in a step, which are rounded to 8 bits: 1.5 to
        1.8 times as fast on wide data where the processor has AVX-512 BF16, and refused elsewhere; see `mfld.bfloat16`.
    num_threads : int, optional
        Default: what OpenMP would take (OMP_NUM_THREADS). It never changes the result.
    n_replicates : int
        Independent repetitions that run side by side: same objective, same seed, noise and initial particles of their
        own. Replicate r is, to the bit, the run of one replicate that starts from ``init(objective, seed, replica=r)``.
        Step size, temperature and l2 may be sequences then, of one for each replicate, and the replicates the points of
        a grid.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> inputs = np.linspace(-2, 2, 50)[:, np.newaxis]
    >>> model = mfld.TwoLayerNetwork(n_features=1, activation="tanh")
    >>> risk = mfld.EmpiricalRisk(model, inputs, np.sin(inputs[:, 0]), loss="squared", l2=1e-4)
    >>> solver = mfld.MFLD(n_particles=200, step_size=0.2, temperature=1e-5)
    >>> result = solver.run(risk, n_steps=1000, seed=0)
    >>> bool(result.history["loss"][-1] < 0.02)
    True

    The same by hand; a `State` is never changed:

    >>> state = solver.init(risk, seed=0)
    >>> for _ in range(10):
    ...     state, info = solver.advance(risk, state, n_steps=100)
    >>> np.array_equal(state.particles, result.particles)
    True
    """

    n_particles: int = 1000
    _: KW_ONLY
    step_size: Scheduled | tuple[Scheduled, ...] | str | None = None
    temperature: Scheduled | tuple[Scheduled, ...]
    l2: Scheduled | tuple[Scheduled, ...] | None = None
    gradient: GradientEstimator = field(default_factory=FullBatch)
    dynamics: Dynamics = field(default_factory=Overdamped)
    dtype: DTypeLike = "float32"
    num_threads: int | None = None
    n_replicates: int = 1

    goes_on: ClassVar[bool] = True

    @property
    def sees_all_rows(self) -> bool:  # type: ignore[override]
        return self.gradient.exact

    def __post_init__(self) -> None:
        n_replicates = validation.integer("n_replicates", self.n_replicates, 1)
        if isinstance(self.step_size, str) and self.step_size != "fuse":
            raise TypeError(f"step_size must be a real number or 'fuse', got {validation.show(self.step_size)}")

        def scheduled(name: str, positive: bool = False) -> Scheduled | tuple[Scheduled, ...]:
            return schedules.check_each(name, getattr(self, name), n_replicates, positive=positive)

        checked = {
            "n_particles": validation.integer("n_particles", self.n_particles, 1),
            "step_size": self.step_size if self._finds_size else scheduled("step_size", positive=True),
            "temperature": scheduled("temperature"),
            "l2": None if self.l2 is None else scheduled("l2"),
            "dtype": validation.precision("dtype", self.dtype),
            "n_replicates": n_replicates,
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        lacking = bfloat16.missing() if self.dtype == "bfloat16" else None
        if lacking is not None:
            raise ValueError(f"dtype must be 'float32' or 'float64' here, got 'bfloat16': {lacking}")
        validation.instance("gradient", self.gradient, GradientEstimator, "a GradientEstimator, like FullBatch()")
        validation.instance("dynamics", self.dynamics, Dynamics, "a Dynamics, like Overdamped()")
        own = type(self.gradient).rows_of_a_step is GradientEstimator.rows_of_a_step
        if self.step_size is None and own and not self.gradient.exact:
            raise ValueError(
                f"step_size must be given with {self.gradient!r}, which does not define rows_of_a_step: the automatic "
                "one depends on how many rows a step sees"
            )
        if self.step_size is None and self.dynamics.curvature_power == 0:
            known = "the automatic one is for Overdamped() and Underdamped()"
            raise ValueError(f"step_size must be given with {self.dynamics}: {known}")
        if isinstance(self.step_size, str) and self.dynamics.curvature_power != 1:
            raise ValueError(f"step_size must be a number with {self.dynamics}: 'fuse' is for Overdamped()")
        validation.num_threads(self.num_threads)

    @property
    def _finds_size(self) -> bool:
        """True where nobody gave the sizes of the steps."""
        return self.step_size is None or isinstance(self.step_size, str)

    @property
    def _dtype(self) -> str:
        """Precision of the particles."""
        return validation.of_particles(str(self.dtype))

    @property
    def _moves(self) -> Dynamics:
        """The dynamics with the rule for their step size, where this is one of the steps."""
        return Fuse(self.dynamics) if isinstance(self.step_size, str) else self.dynamics

    def rows_of_a_step(self, objective: Objective) -> int | None:
        return self.gradient.rows_of_a_step(objective)

    def at_step(self, share: Fraction) -> tuple[MFLD, Fraction] | None:
        if self.step_size is None or isinstance(self.step_size, str):
            return None
        numbers = {name: schedules.stretched(getattr(self, name), share) for name in ("temperature", "l2")}
        size = schedules.stretched(self.step_size, share, factor=float(share))
        return dataclasses.replace(self, step_size=size, **numbers), 1 / share

    def coupled(self, couplings: Mapping[int, Coupling]) -> MFLD | None:
        if self.dtype == "bfloat16":  # moves on another run's noise are not those of the core, which has these products
            return None
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
        """State before the first step.

        Parameters
        ----------
        objective : Objective
        seed : int
            At least 0 and below 2**64: of the initial particles and of all the noise of the run.
        particles : array_like, shape (n_particles, p) or (n_replicates, n_particles, p), optional
            Where to start; by default the objective's initial particles, those of replica r > 0 with the seed
            ``noise.key(seed, r)``.
        replica : int or sequence of int
            Number of the first replicate, or of each: those of one number have the same noise and initial particles,
            so that what differs comes from their step size, temperature and l2. The noise of replica r has the key
            ``noise.key(seed, r)``.

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or out of range, or the particles do not fit.
        """
        self.check(objective)
        seed, replicas = validation.seed(seed), noise.replicas(replica, self.n_replicates)
        places = [noise.initial(seed, number, self.num_threads) for number in replicas]
        particles = start(objective, particles, self.n_replicates, self.n_particles, self._dtype, places)
        return State({"mu": Cloud(particles)}, step=0, seed=seed, replica=replicas)

    @underflow_is_zero
    def advance(
        self, objective: Objective, state: State, n_steps: int = 1, *, probe: bool = False
    ) -> tuple[State, Info]:
        """Make steps; k steps and then k steps are 2k steps, bit by bit.

        Parameters
        ----------
        objective : Objective
        state : State
            Where to start; it stays as it is.
        n_steps : int
            With 0 the same state comes back.
        probe : bool
            Compare the gradient estimate of the last step with the full gradient: ``info.gradient_variance``. It costs
            a full gradient and does not change the steps.

        Returns
        -------
        State, Info

        Raises
        ------
        DivergenceError
            If a particle is not finite after a step; the last good state is attached.
        KeyboardInterrupt
            At Ctrl-C, answered within long steps too; the state that the steps so far led to is attached as ``state``.
            Replicates go back to where all of them stood last, some tenths of a second or a step ago.
        TypeError, ValueError
            If an argument is of the wrong kind or out of range, or the state is none of this solver and objective; if
            ``probe`` is asked of `Clipped` gradients.
        """
        validation.instance("state", state, State, "a State")
        self.check(objective, state)
        n_steps = validation.integer("n_steps", n_steps, 0, validation.MAX_STEP - state.step)
        if n_steps == 0:
            return state, Info(steps=0)
        if validation.boolean("probe", probe):
            self._check_open()
            state, _ = self.advance(objective, state, n_steps - 1)
            variances = [self.gradient_variance(objective, one) for one in state.each()]
            state, info = self.advance(objective, state, 1)
            return state, together(
                [
                    dataclasses.replace(one, steps=n_steps, gradient_variance=variance)
                    for one, variance in zip(info.each(), variances, strict=True)
                ]
            )
        if self.step_size is not None:
            return self._advance(objective, state, n_steps)
        end = state.step + n_steps
        try:
            while state.step < end:
                # The same counts however the steps are cut into calls, so that restarts stay exact.
                stop = min(end, step_size.following(state.step))
                state, info = self._advance(objective, self._with_curvature(objective, state), stop - state.step)
        except BaseException as error:
            if not hasattr(error, "state"):
                error.state = state  # type: ignore[attr-defined]
            raise
        return state, together([dataclasses.replace(one, steps=n_steps) for one in info.each()])

    def _advance(self, objective: Objective, state: State, n_steps: int) -> tuple[State, Info]:
        plan = self._plan(objective, state, n_steps)
        carried, buffers = self._buffers(state)
        ((name, cloud),) = state.clouds.items()
        own = self._moves.buffer_names
        if own and not any(buffer in buffers for buffer in own):
            begun = [self._moves.start(one, plan.at(0, objective.space, r)) for r, one in enumerate(cloud.particles)]
            buffers.update({buffer: np.stack([one[buffer] for one in begun]) for buffer in begun[0]})
        outcome = steps(objective, cloud.particles, buffers, n_steps, plan)
        outcome.particles.flags.writeable = False  # so that the cloud takes them without a copy
        kept = {buffer: value for buffer, value in outcome.buffers.items() if buffer in carried}
        if self.step_size is None:
            kept.update({name: state.buffers[name] for name in (_CURVATURE, _STEEPEST)})
        if outcome.steps == 0 and private_steps.ACCOUNT in state.buffers:
            kept[private_steps.ACCOUNT] = state.buffers[private_steps.ACCOUNT]
        elif outcome.steps and self._is_accounted:
            kept[private_steps.ACCOUNT] = self._account(objective, state, plan, outcome.steps)
        reached = state.after(outcome.steps, {name: Cloud(outcome.particles)}, kept)
        if outcome.interrupt is not None:
            outcome.interrupt.state = reached  # type: ignore[attr-defined]
            raise outcome.interrupt
        if outcome.bad is not None:
            replicate, particle = outcome.bad
            size = _sizes(reached, plan, outcome.steps)[replicate]
            several = replicate if state.n_replicates > 1 else None
            raise DivergenceError(reached.step, particle, size, reached, several)
        infos = []
        seen = zip(outcome.loss, outcome.gradient_norm, outcome.acceptance, strict=True)
        sizes = _sizes(reached, plan, n_steps - 1)
        for r, (loss, gradient_norm, acceptance) in enumerate(seen):
            _, temperature, l2 = plan.numbers(n_steps - 1, r)
            infos.append(Info(n_steps, loss, gradient_norm, sizes[r], temperature, l2, acceptance))
        return reached, together(infos)

    def numbers(self, objective: Objective, state: State) -> tuple[float, float, float]:
        """Step size, temperature and l2 of the next step of a state; of several replicates those of the first.

        Parameters
        ----------
        objective : Objective
        state : State

        Raises
        ------
        TypeError, ValueError
            If the state is none of this solver and objective, or each step finds its own size ("fuse").

        Examples
        --------
        >>> import mfld
        >>> solver = mfld.MFLD(step_size=mfld.schedules.Power(0.5, 0.5), temperature=0.01)
        >>> well = mfld.Potential(lambda x: x, n_coordinates=1, l2=0.1)
        >>> state, _ = solver.advance(well, solver.init(well), n_steps=3)
        >>> solver.numbers(well, state)
        (0.25, 0.01, 0.1)
        """
        self.check(objective, state)
        if isinstance(self.step_size, str):
            raise ValueError(f"step_size must be a number, a schedule or None here, got {self.step_size!r}")
        if self.step_size is None:
            state = self._with_curvature(objective, state)
        return self._plan(objective, state, 1).numbers(0)

    def gradient_variance(self, objective: Objective, state: State) -> float:
        """Mean over particles of ``|estimate - full gradient|**2``, for the estimate at the particles of a state.

        Of several replicates it is the mean.
        The next step uses it; where a dynamics takes its gradients at the end of a step, the last one has used it.

        This is the error of one draw; averaged over steps it tends to the variance of the estimator, and of a biased
        one like `SARAH` to its mean squared error. Use it in ``run`` as ``record={"variance": lambda state:
        solver.gradient_variance(objective, state)}``, or see ``probe`` of `advance`.

        Parameters
        ----------
        objective : Objective
        state : State

        Raises
        ------
        TypeError, ValueError
            If the state is none of this solver and objective; if the gradients are `Clipped`, for the full one tells of
            rows.

        Examples
        --------
        >>> import numpy as np
        >>> import mfld
        >>> inputs = np.linspace(-2, 2, 50)[:, np.newaxis]
        >>> model = mfld.TwoLayerNetwork(n_features=1)
        >>> risk = mfld.EmpiricalRisk(model, inputs, np.sin(inputs[:, 0]), loss="squared")
        >>> for gradient in (mfld.Minibatch(10), mfld.SVRG(10, refresh_every=20)):
        ...     solver = mfld.MFLD(n_particles=100, step_size=0.1, temperature=1e-4, gradient=gradient)
        ...     state, info = solver.advance(risk, solver.init(risk), n_steps=110, probe=True)
        ...     print(info.gradient_variance > 3e-5)
        True
        False
        """
        self.check(objective, state)
        self._check_open()
        if state.n_replicates > 1:
            return float(np.mean([self.gradient_variance(objective, one) for one in state.each()]))
        place = Place(state.key, state.step, 0, self.num_threads)
        objective = objective.on_threads(self.num_threads)
        buffers = {name: value[0] for name, value in self._buffers(state)[1].items()}
        estimate, _ = self.gradient.estimate(objective, state.particles, buffers, place)
        full = objective.loss_gradient(state.particles)
        error = (estimate.astype(np.float64) - full)[..., : objective.n_moving]
        return float(np.mean(np.sum(error**2, axis=-1)))

    def privacy_spent(
        self,
        objective: Objective,
        state: State,
        delta: float,
        *,
        count_dynamics: bool = False,
        accountant: str = "rdp",
        n_steps: int = 0,
        **options: Any,
    ) -> float:
        """Epsilon at delta of the steps that led to a state, with `mfld.Clipped` gradients, for add/remove neighbours.

        All particles after each step may be published. A step ``theta - h g + s xi`` has noise of its own: with
        ``count_dynamics`` its deviation counts beside that of the gradients, which holds as long as the seed is secret.
        The state has the account of its steps, with the noise that each of them had, whichever solver made it and on
        whichever rows: all of them are added up. A run from particles counts from 0, whatever led to these, and what
        other runs on the same rows have cost comes on top.

        Parameters
        ----------
        objective : Objective
        state : State
        delta : float
            Between 0 and 1.
        count_dynamics : bool
            Needs a run with ``seed=mfld.privacy.secret_seed()``, and a state that is not published.
        accountant : {"rdp", "pld"}
            Renyi divergences, or the tighter loss distributions of dp-accounting (extra ``privacy``).
        n_steps : int
            Steps of this solver that are to follow, and count too.

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or out of range; if the gradients are not clipped, the dynamics are not
            `Affine`, the step size looks at the data, or the seed is one that people guess; if some step that led to
            the state was such a one.

        Examples
        --------
        What a run will cost, before it:

        >>> import numpy as np
        >>> import mfld
        >>> X = np.random.default_rng(0).normal(size=(1000, 2))
        >>> risk = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(2), X, np.sign(X[:, 0]), loss="logistic")
        >>> gradient = mfld.Clipped(max_norm=1.0, noise_multiplier=1.0, batch_rate=0.1)
        >>> solver = mfld.MFLD(50, step_size=0.5, temperature=0.0, gradient=gradient)
        >>> planned = solver.privacy_spent(risk, solver.init(risk), 1e-5, n_steps=40)
        >>> bool(planned == solver.run(risk, 40).privacy_spent(1e-5))
        True
        """
        validation.instance("state", state, State, "a State")
        if not self.gradient.bounds_rows:
            fits = "Clipped(max_norm, noise_multiplier, batch_rate)"
            raise TypeError(f"gradient must be {fits} for privacy, got {self.gradient!r}")
        if self._finds_size:
            raise ValueError("step_size must be given for privacy: one that is found looks at the data")
        if validation.boolean("count_dynamics", count_dynamics) and state.seed < _LEAST_SECRET:
            raise ValueError(
                f"seed must be secret where the noise of the dynamics counts, got {state.seed}: run with "
                "seed=mfld.privacy.secret_seed()"
            )
        if state.n_replicates > 1:
            raise ValueError(f"n_replicates must be 1 for an account of privacy, got {state.n_replicates}")
        if not self.dynamics.affine:  # others may ask for more gradients than they make steps
            raise ValueError(f"dynamics must be Affine, like Overdamped(), for privacy, got {self.dynamics}")
        self.gradient.check(objective)
        private_steps.check(state)
        n_steps = validation.integer("n_steps", n_steps, 0, validation.MAX_STEP - state.step)
        if n_steps:
            ahead = self._account(objective, state, self._plan(objective, state, n_steps), n_steps)
            buffers = {**state.buffers, private_steps.ACCOUNT: ahead}
            state = dataclasses.replace(state, step=state.step + n_steps, buffers=buffers)
        return private_steps.spent(state, delta, count_dynamics=count_dynamics, accountant=accountant)

    def _check_open(self) -> None:
        if self.gradient.bounds_rows:
            raise ValueError(
                f"gradient must not be {self.gradient!r} where it is compared with the full one: that tells of rows, "
                "and no account of privacy has it"
            )

    @property
    def _is_accounted(self) -> bool:
        """True where steps have an account of privacy."""
        return self.gradient.bounds_rows and self.dynamics.affine and not self._finds_size

    def _account(self, objective: Objective, state: State, plan: Plan, n_steps: int) -> NDArray[np.float64]:
        """Account of privacy of a state and so many steps of a plan."""
        _, scales, deviations = np.broadcast_arrays(*map(np.atleast_2d, plan.coefficients(n_steps)))
        n_particles = next(iter(state.clouds.values())).particles.shape[-2]
        rate, own, of_dynamics = self.gradient.noise_multipliers(objective, n_particles, scales, deviations)
        n_columns = of_dynamics.shape[1]
        if state.seed < _LEAST_SECRET:  # what goes on from here may have another seed
            of_dynamics = np.zeros_like(of_dynamics)
        of_each = np.broadcast_to(of_dynamics, (state.n_replicates, n_columns))
        return private_steps.recorded(state, n_steps // n_columns, rate, own, np.abs(of_each))

    def check(self, objective: Objective, state: State | None = None) -> None:
        validation.instance("objective", objective, Objective, "an Objective")
        if state is None:
            objective.check()
        self.gradient.check(objective)
        self._moves.check(objective, self.gradient)
        self._moves.check_space(objective)
        if self.dtype == "bfloat16" and not (
            type(self.gradient).native is not GradientEstimator.native
            and self._moves.in_core
            and objective.native_in_bfloat16() is not None
        ):
            raise not_in_bfloat16(objective, self.gradient, self._moves)
        if self.l2 is not None and not objective.space.flat:
            raise ValueError(f"l2 must be left out on the domain {objective.space.domain}, got {self.l2}")
        if state is None:
            return
        state = self._first_replicate(objective, state, self._dtype)
        n_particles = state.particles.shape[-2]
        shapes = {
            **self.gradient.buffer_shapes(objective, n_particles),
            **self._moves.buffer_shapes(objective, n_particles),
            _CURVATURE: (),
        }
        for name, shape in shapes.items():
            if name in state.buffers and state.buffers[name].shape != (1, *shape):
                raise ValueError(
                    f"state.buffers[{name!r}] must have shape {(1, *shape)} to suit the objective, got "
                    f"{state.buffers[name].shape}: it is of another one. To change the objective start anew from its "
                    "particles, with init(objective, particles=state.particles)"
                )

    def late_dual(self, objective: Objective, state: State, info: Info) -> FloatArray:
        """Averages of the dual variables over 50 looks at further steps, a quarter of those made, 100 to 1000.

        The steps are those of the last one, with its temperature and step size. Where no step was made, or replicates
        differ in these, it is `dual`.
        """
        last = {(one.step_size, one.temperature, one.l2) for one in info.each()}
        if info.steps == 0 or len(last) > 1 or not all(map(math.isfinite, next(iter(last)))):
            return self.dual(objective, state)
        size, temperature, l2 = next(iter(last))
        own = None if self.l2 is None and isinstance(self.temperature, float) else l2
        solver = dataclasses.replace(self, step_size=size, temperature=temperature, l2=own)
        every = min(max(state.step // 4, 2 * _LOOKS), 20 * _LOOKS) // _LOOKS
        total: FloatArray = self.dual(objective, state)
        for _ in range(_LOOKS):
            state, _ = solver.advance(objective, state, every)
            total = total + self.dual(objective, state)
        return total / (_LOOKS + 1)

    def _buffers(self, state: State) -> tuple[tuple[str, ...], dict[str, NDArray[Any]]]:
        """Names of what the estimator and the dynamics carry, and what the state has of it."""
        names = self.gradient.buffer_names + self._moves.buffer_names
        return names, {name: state.buffers[name] for name in names if name in state.buffers}

    def _with_curvature(self, objective: Objective, state: State) -> State:
        """The state with what is known of the curvature: looked at anew where that is due."""
        known = state.buffers.get(_CURVATURE)
        if known is not None and _STEEPEST in state.buffers and not step_size.due(state.step):
            return state
        plan = self._plan(objective, state, 1, known=np.zeros(state.n_replicates))
        earlier = state.buffers.get(_STEEPEST, [None] * state.n_replicates)
        largest_yet = [None] * state.n_replicates if known is None else known.tolist()
        found, steepest = zip(
            *(
                step_size.estimate(
                    objective,
                    self.gradient,
                    one.particles,
                    plan.at(0, objective.space, r),
                    earlier[r],
                    largest_yet[r],
                )
                for r, one in enumerate(state.each())
            ),
            strict=True,
        )
        largest = np.array(found) if known is None else np.fmax(known, found)
        return dataclasses.replace(state, buffers={**state.buffers, _CURVATURE: largest, _STEEPEST: np.stack(steepest)})

    def _plan(self, objective: Objective, state: State, n_steps: int, known: NDArray[np.float64] | None = None) -> Plan:
        sizes: Numbers
        l2: Numbers
        temperature = schedules.table("temperature", self.temperature, state.step, n_steps)
        if self.l2 is not None:
            l2 = schedules.table("l2", self.l2, state.step, n_steps)
        elif isinstance(self.temperature, float):
            l2 = objective.l2
        else:
            l2 = objective.reference.follow(temperature, schedules.table("temperature", self.temperature, 0, 1))
        if isinstance(self.step_size, str):
            sizes = 1.0  # each step finds its own
        elif self.step_size is None:
            curvature = state.buffers[_CURVATURE] if known is None else known
            sizes = step_size.size(curvature[:, np.newaxis], l2) ** self.dynamics.curvature_power
        else:
            sizes = schedules.table("step_size", self.step_size, state.step, n_steps, positive=True)
        threads = validation.num_threads(self.num_threads)
        return Plan(
            step_size=sizes,
            temperature=temperature,
            l2=l2,
            gradient=self.gradient,
            dynamics=self._moves,
            places=tuple(Place(key, state.step, 0, threads) for key in state.keys),
            bfloat16=self.dtype == "bfloat16",
        )


def _sizes(state: State, plan: Plan, k: int) -> list[float]:
    """Step size of each replicate in step k of a plan that led to a state; of a rule of the steps, the last one."""
    found = state.buffers.get("fuse_step_size")
    return [plan.numbers(k, r)[0] if found is None else float(found[r]) for r in range(state.n_replicates)]
