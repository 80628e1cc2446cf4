"""Particle stochastic dual coordinate ascent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mfld import _core, noise, schedules, validation
from mfld.algorithms.base import Algorithm
from mfld.algorithms.replicates import join, start, together
from mfld.floating import underflow_is_zero
from mfld.losses import Loss
from mfld.objectives import EmpiricalRisk, Objective
from mfld.sampling import Chains, GibbsSampler, systematic
from mfld.schedules import Scheduled
from mfld.state import Cloud, Info, State
from mfld.validation import FloatArray

_WATCHED_ROWS = 8
_MOST_MOVES = 100  # of a refresh
# With coupled outputs dual variables go far in the first epochs, over many early refreshes, each from a law nearby.
_MOST_MOVES_COUPLED = 20
_SMALLEST_GROUP = 16
_BLOCKS = 8  # of coupled rows in an epoch, after each of which the dual is looked at
_SAFETY = 2.0  # times the variance of the neurons that is seen


def _cyclic(place: noise.Place, n: int) -> NDArray[np.int64]:
    return np.arange(n)


def _permuted(place: noise.Place, n: int) -> NDArray[np.int64]:
    normals = place.normals(n, 1, "float64", "coordinate_order")
    order: NDArray[np.int64] = np.argsort(normals[:, 0], kind="stable")
    return order


def _random(place: noise.Place, n: int) -> NDArray[np.int64]:
    uniforms = place.uniforms(n, 1, "float64", "coordinate_order")[:, 0]
    rows: NDArray[np.int64] = np.minimum((uniforms * n).astype(np.int64), n - 1)
    return rows


ORDERS: Final[dict[str, Callable[[noise.Place, int], NDArray[np.int64]]]] = {
    "cyclic": _cyclic,
    "permuted": _permuted,
    "random": _random,
}


@dataclass(frozen=True)
class PSDCA(Algorithm):
    """Particle stochastic dual coordinate ascent: dual variables of the samples, and a weighted cloud.

    It maximises the dual of ``F(mu) + temperature * Ent(mu)``, ::

        D(g) = -sum_i s_i l*(g_i, y_i) - temperature * log integral exp(-potential_g / temperature),
        potential_g(theta) = sum_i s_i g_i h(theta, z_i) + l2 |theta|**2

    sample by sample, with ``u_i`` the prediction of the cloud and V a bound on the variance of h::

        g_i  <- argmin_q l*(q, y_i) - u_i (q - g_i) + (q - g_i)**2 / (2 a_i),      a_i = temperature / (s_i V)
        log r_m <- log r_m - s_i h(theta_m, z_i) (g_i' - g_i) / temperature

    The cloud with weights r stands for the Gibbs law of ``potential_g``. Every ``refresh_every`` samples, and as soon
    as the effective sample size ``(sum r)**2 / sum r**2`` falls below its threshold, the particles are resampled by
    weight and moved by `mfld.sampling.GibbsSampler` until neither the potential nor the neurons at 8 rows keep a
    correlation above 0.3 with what they were, at most 100 moves: there is nothing to tune. For V the square of half the
    length of the neuron's range is taken, which bounds the variance under every measure, so that each update increases
    D. With K coupled outputs (cross-entropy) the bound would be K times that, far above what neurons do: V is then
    twice the largest variance that neurons are seen to have at a refresh, which takes at most 20 moves, and rows are
    visited in blocks of an eighth. Where the dual, by its conjugates and the weights' estimate of the partition
    function, fell over a block by more than twice its Monte-Carlo error, the block is taken back and made again with V
    doubled, up to the bound at which it cannot fall. Where there are frozen signs, each combination of them keeps its
    share of the particles, as in `MFLD`: weights are normalised within it. One step is one epoch: n visits.
    The dual variables start at those of the prediction 0, ``g_i = l'(0, y_i)``, which the cloud reaches from the
    Gaussian ``g = 0`` by tempering. With exact expectations the gap contracts by ``1 - c / (1 + c n)`` a visit, with
    ``c = temperature * gamma / V`` for a loss whose derivative has the Lipschitz constant 1 / gamma. Source: Oko,
    Suzuki, Nitanda, Wu 2022, "Particle stochastic dual coordinate ascent: exponential convergent algorithm for mean
    field neural network optimization".

    The state's buffers: ``dual`` (R, n, K), ``log_weights`` (R, N), ``log_partition`` (R,), the estimate of log of the
    integral above telescoped over refreshes (with frozen signs the average over their groups), and the inner sampler's
    ``sampler_step_size`` and ``sampler_moves``, ``visits`` since the last refresh, and ``variance_bound``, V.

    Parameters
    ----------
    n_particles : int
        N.
    temperature : float, Schedule or function of the epoch
        Positive. Between epochs of different temperatures the particles are led from one Gibbs law of the dual
        variables to the other, with the objective's l2 in both, by weights and refreshes. If the first epochs are warm,
        a cold problem is done faster, and its modes are met more evenly.
    order : {"permuted", "random", "cyclic"}
        Of the samples in an epoch: a new permutation each time, draws with replacement, or as they are.
    refresh_every : int, optional
        Visits of samples between two refreshes; by default n.
    effective_sample_size : float
        Share of N, in (0, 1), below which there is an early refresh.
    dtype : {"float32", "float64"}
        Precision of the particles; dual variables and log-weights are float64.
    num_threads, n_replicates
        As in `MFLD`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> inputs = np.linspace(-2, 2, 50)[:, np.newaxis]
    >>> model = mfld.TwoLayerNetwork(n_features=1, readout="bounded")
    >>> risk = mfld.EmpiricalRisk(model, inputs, np.sign(inputs[:, 0]), loss="logistic", l2=0.01)
    >>> result = mfld.PSDCA(n_particles=500, temperature=0.01).run(risk, n_steps=10)
    >>> result.dual.shape, bool(result.history["loss"][-1] < 0.5)
    ((50,), True)
    """

    n_particles: int = 1000
    _: KW_ONLY
    temperature: Scheduled
    order: str = "permuted"
    refresh_every: int | None = None
    effective_sample_size: float = 0.5
    dtype: DTypeLike = "float32"
    num_threads: int | None = None
    n_replicates: int = 1

    has_dual: ClassVar[bool] = True
    starts_anywhere: ClassVar[bool] = False

    def __post_init__(self) -> None:
        checked = {
            "n_particles": validation.integer("n_particles", self.n_particles, 1),
            "temperature": schedules.check("temperature", self.temperature, positive=True),
            "order": validation.choice("order", self.order, ORDERS),
            "effective_sample_size": validation.real("effective_sample_size", self.effective_sample_size),
            "dtype": validation.float_dtype("dtype", self.dtype).name,
            "n_replicates": validation.integer("n_replicates", self.n_replicates, 1),
        }
        if not 0 < checked["effective_sample_size"] < 1:  # type: ignore[operator]
            got = self.effective_sample_size
            raise ValueError(f"effective_sample_size must be a share between 0 and 1, got {got}")
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.refresh_every is not None:
            validation.integer("refresh_every", self.refresh_every, 1)
        validation.num_threads(self.num_threads)

    @underflow_is_zero
    def init(
        self,
        objective: Objective,
        seed: int = 0,
        particles: ArrayLike | None = None,
        *,
        replica: int | Sequence[int] = 0,
    ) -> State:
        """State before the first epoch.

        Parameters
        ----------
        objective : EmpiricalRisk
            With a bounded model and ``l2 > 0``.
        seed, replica
            As in `MFLD.init`.
        particles : array_like, shape (n_particles, p) or (n_replicates, n_particles, p), optional
            A sample of the Gaussian N(0, temperature / (2 l2)) in the moving coordinates; by default it is drawn.
            Particles are sorted by their frozen coordinates.

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or out of range, or this algorithm cannot serve the objective.
        """
        risk = self._risk(objective)
        seed, replicas = validation.seed(seed), noise.replicas(replica, self.n_replicates)
        moving, temperature = risk.n_moving, self._temperature(0)

        def draw(n_particles: int, place: noise.Place, dtype: DTypeLike) -> FloatArray:
            drawn = risk.initial_particles(n_particles, place, dtype)
            drawn[:, :moving] = risk.reference.draw(place, n_particles, risk.space, temperature, dtype)
            return drawn

        places = [noise.initial(seed, number, self.num_threads) for number in replicas]
        begun = start(risk, particles, self.n_replicates, self.n_particles, self.dtype, places, draw)
        states = []
        for number, given in zip(replicas, begun, strict=True):
            work = _Work(
                self,
                risk,
                key=noise.key(seed, number),
                temperature=temperature,
                particles=given[np.lexsort(given[:, moving:].T)] if moving < risk.n_coordinates else given,
                log_weights=np.zeros(self.n_particles),
                dual=dual_of_zero(risk),
                log_partition=risk.reference.log_normaliser(risk.space, temperature),
            )
            work.temper()
            states.append(work.state(work.values(), 0, seed, number))
        return join(states)

    @underflow_is_zero
    def advance(self, objective: Objective, state: State, n_steps: int = 1) -> tuple[State, Info]:
        """Make epochs; k epochs and then k epochs are 2k epochs, bit by bit.

        Parameters
        ----------
        objective : EmpiricalRisk
        state : State
            Where to start; it stays as it is.
        n_steps : int
            Epochs: each visits n samples, those of weight 0 excepted.

        Returns
        -------
        State, Info
            ``loss`` is that of the weighted cloud after the last epoch; ``step_size`` and ``acceptance`` are the inner
            sampler's.

        Raises
        ------
        KeyboardInterrupt
            At Ctrl-C; the state after the last whole epoch is attached as ``state``.
        TypeError, ValueError
            If an argument is of the wrong kind or out of range, or the state is none of this solver and objective.
        """
        validation.instance("state", state, State, "a State")
        self.check(objective, state)
        risk = self._risk(objective)
        n_steps = validation.integer("n_steps", n_steps, 0, validation.MAX_STEP - state.step)
        if n_steps == 0:
            return state, Info(steps=0)
        temperatures = schedules.values("temperature", self.temperature, state.step, n_steps, positive=True)
        temperatures = np.broadcast_to(temperatures, n_steps)
        before = self._temperature(max(state.step - 1, 0))
        works = [_Work.of(self, risk, one, before) for one in state.each()]
        step, values = state.step, [work.values() for work in works]

        def reached() -> State:
            each = zip(works, values, strict=True)
            return join(
                [work.state(own, step, state.seed, r) for r, (work, own) in zip(state.replicas, each, strict=True)]
            )

        try:
            for k, temperature in enumerate(temperatures.tolist(), state.step):
                for work in works:
                    work.cool(temperature)
                    work.epoch(k)
                step, values = k + 1, [work.values() for work in works]
        except BaseException as error:
            error.state = reached()  # type: ignore[attr-defined]
            raise
        end = reached()
        infos = [
            Info(
                n_steps,
                risk.loss(one.measure),
                step_size=work.step_size,
                temperature=work.temperature,
                l2=risk.l2,
                acceptance=work.acceptance,
            )
            for work, one in zip(works, end.each(), strict=True)
        ]
        return end, together(infos)

    def _temperature(self, epoch: int) -> float:
        return float(schedules.values("temperature", self.temperature, epoch, 1, positive=True)[0])

    def dual(self, objective: Objective, state: State) -> FloatArray:
        dual: FloatArray = state.buffers["dual"].mean(axis=0)
        return dual

    def check(self, objective: Objective, state: State | None = None) -> None:
        risk = self._risk(objective)
        if state is None:
            return
        state = self._first_replicate(risk, state, self.dtype, may_be_weighted=True)
        missing = [name for name in _BUFFERS if name not in state.buffers]
        if missing:
            raise ValueError(f"state must be one of PSDCA: it lacks the buffers {', '.join(missing)}")
        expected = (1, risk.n_samples, risk.model.n_outputs)
        validation.shape("state.buffers['dual']", state.buffers["dual"], expected, "to suit the objective")

    def _risk(self, objective: Objective) -> EmpiricalRisk:
        risk = validation.instance("objective", objective, EmpiricalRisk, "an EmpiricalRisk, whose loss has a dual")
        validation.instance("the objective's loss", risk.loss_function, Loss, "a Loss, whose conjugate is known")
        model: Any = risk.model
        if model.native is None:
            expected = "a TwoLayerNetwork, whose bound is known"
            raise TypeError(f"the objective's model must be {expected}, got {validation.show(model)}")
        if not risk.space.flat:
            raise ValueError(f"objective must live in Euclidean space for PSDCA, got the domain {risk.space.domain}")
        if risk.l2 <= 0:
            raise ValueError(
                "l2 must be positive for PSDCA: without a ridge the dual's Gibbs law does not exist; got 0"
            )
        if not math.isfinite(max(map(abs, model.output_range))):
            raise ValueError(
                f"PSDCA needs a bounded neuron, got readout={model.readout!r} with activation={model.activation!r}: "
                "take readout='bounded', 'parity', 'signs' or 'fixed' with a bounded activation, like 'tanh'"
            )
        return risk.on_threads(self.num_threads)


def dual_of_zero(risk: EmpiricalRisk) -> NDArray[np.float64]:
    """Dual variables of the prediction 0, ``l'(0, y_i)``: inside of the domain of every conjugate."""
    targets = risk.targets.astype(np.float64)
    _, derivative = risk.loss_function.evaluate(np.zeros((risk.n_samples, risk.model.n_outputs)), targets)
    return derivative.astype(np.float64)


_BUFFERS = ("dual", "log_weights", "log_partition", "sampler_step_size", "sampler_moves", "visits", "variance_bound")


class _Values(NamedTuple):
    """Contents of a state, which costs more to make than to keep these after an epoch."""

    particles: FloatArray
    buffers: dict[str, Any]


class _Work:
    """The mutable side of a call: what the buffers of a state hold, and the steps on it."""

    def __init__(
        self,
        solver: PSDCA,
        risk: EmpiricalRisk,
        *,
        key: int,
        temperature: float,
        particles: FloatArray,
        log_weights: NDArray[np.float64],
        dual: NDArray[np.float64],
        log_partition: float,
        step_size: float = math.nan,
        moves: int = 0,
        visits: int = 0,
        variance_bound: float = math.nan,
    ) -> None:
        self.solver, self.risk, self.key, self.temperature = solver, risk, key, temperature
        self.particles, self.log_weights, self.dual = particles, log_weights, dual
        self.log_partition, self.step_size, self.moves, self.visits = log_partition, step_size, moves, visits
        self.acceptance = math.nan
        self.groups = _groups(particles[:, risk.n_moving :])
        if len(self.groups) > 1 and self.groups.min() < _SMALLEST_GROUP:
            raise ValueError(
                f"n_particles must give at least {_SMALLEST_GROUP} particles to each combination of frozen signs, "
                f"got {self.groups.min()} for one of {len(self.groups)} combinations"
            )
        low, high = risk.model.output_range
        self.coupled = risk.loss_function.targets == "class"
        self.neuron_bound = max(abs(low), abs(high))
        self.largest_variance = (risk.model.n_outputs if self.coupled else 1) * ((high - low) / 2) ** 2
        self.variance_bound = self.largest_variance if math.isnan(variance_bound) else variance_bound

    @classmethod
    def of(cls, solver: PSDCA, risk: EmpiricalRisk, state: State, temperature: float) -> _Work:
        buffers = {name: state.buffers[name][0] for name in _BUFFERS}
        return cls(
            solver,
            risk,
            key=state.key,
            temperature=temperature,
            particles=state.particles,
            log_weights=buffers["log_weights"].copy(),
            dual=buffers["dual"].copy(),
            log_partition=float(buffers["log_partition"]),
            step_size=float(buffers["sampler_step_size"]),
            moves=int(buffers["sampler_moves"]),
            visits=int(buffers["visits"]),
            variance_bound=float(buffers["variance_bound"]),
        )

    def values(self) -> _Values:
        numbers = (self.log_partition, self.step_size, self.moves, self.visits, self.variance_bound)
        return _Values(
            self.particles, dict(zip(_BUFFERS, (self.dual.copy(), self.log_weights.copy(), *numbers), strict=True))
        )

    def state(self, values: _Values, step: int, seed: int, replica: int = 0) -> State:
        weights = self.weights(values.buffers["log_weights"])[np.newaxis]
        buffers = {name: np.array([value]) for name, value in values.buffers.items()}
        return State({"mu": Cloud(values.particles[np.newaxis], weights)}, step, seed, buffers, replica)

    def epoch(self, step: int) -> None:
        risk = self.risk
        place = noise.Place(self.key, step, num_threads=self.solver.num_threads)
        rows = ORDERS[self.solver.order](place, risk.n_samples)
        if risk.sample_weight is not None:
            rows = rows[risk.sample_weight[rows] > 0]
        every = risk.n_samples if self.solver.refresh_every is None else self.solver.refresh_every
        while len(rows):
            if self.visits >= every:
                self.refresh(self.dual)
            part = rows[: every - self.visits]
            if self.coupled:
                part = part[: math.ceil(risk.n_samples / _BLOCKS)]
            done = self.rising_sweep(part) if self.coupled else self.sweep(part)
            self.visits += done
            rows = rows[done:]
            if done < len(part):
                self.refresh(self.dual)

    def sweep(self, rows: NDArray[np.int64]) -> int:
        """Visit rows until the weights degenerate; returns how many were visited."""
        problem = self.risk.native(self.particles.dtype)
        assert problem is not None  # by check
        return _core.backend.dual_sweep(
            problem.network,
            problem.loss,
            self.particles,
            problem.inputs,
            problem.targets,
            problem.weights,
            rows,
            self.groups,
            self.temperature,
            self.variance_bound,
            self.neuron_bound,
            self.solver.effective_sample_size,
            self.log_weights,
            self.dual,
            validation.num_threads(self.solver.num_threads),
            problem.ranks,
        )

    def rising_sweep(self, rows: NDArray[np.int64]) -> int:
        """`sweep`, made again with twice the variance where the dual fell beyond its error, up to the bound on it."""
        while True:
            dual, log_weights = self.dual.copy(), self.log_weights.copy()
            done = self.sweep(rows)
            if done == 0:
                return 0
            rise, error = self.rise(dual, log_weights, rows[:done])
            if rise >= -2 * error or self.variance_bound >= self.largest_variance:
                return done
            self.dual, self.log_weights = dual, log_weights
            self.variance_bound = min(2 * self.variance_bound, self.largest_variance)

    def rise(
        self, dual: NDArray[np.float64], log_weights: NDArray[np.float64], rows: NDArray[np.int64]
    ) -> tuple[float, float]:
        """Change of the dual objective since these dual variables and weights, and its Monte-Carlo error."""
        risk, changed = self.risk, np.unique(rows)
        targets = risk.targets[changed].astype(np.float64)
        s = np.full(len(changed), 1 / risk.n_samples) if risk.sample_weight is None else risk.sample_weight[changed]
        after, before = (risk.loss_function.conjugate(g[changed], targets) for g in (self.dual, dual))
        weights = self.weights(log_weights)
        ratio = np.exp(self.log_weights - log_weights - np.max(self.log_weights - log_weights))
        share = np.repeat(self._by_group(np.add.reduceat, weights), self.groups)
        mean = np.repeat(self._by_group(np.add.reduceat, weights * ratio), self.groups) / share
        error = math.sqrt(float(np.sum((weights * (ratio / mean - 1)) ** 2)))
        change = self._log_mass(self.log_weights) - self._log_mass(log_weights)
        return -float(s @ (after - before)) - self.temperature * change, self.temperature * error

    def temper(self) -> None:
        """From the Gaussian to the Gibbs law of the dual variables."""
        whole = self.risk.linearised(self.dual, num_threads=self.solver.num_threads)

        def change() -> NDArray[np.float64]:
            return whole.value_and_gradient(self.particles)[0].astype(np.float64) / -self.temperature

        for reached in self._rungs(change):
            self.refresh(reached * self.dual)

    def cool(self, temperature: float) -> None:
        """From the Gibbs law of the dual variables to that at another temperature."""
        first, last = 1 / self.temperature, 1 / temperature
        if first == last:
            return
        whole, n_moving = self.risk.linearised(self.dual, num_threads=self.solver.num_threads), self.risk.n_moving

        def change() -> NDArray[np.float64]:
            moving = self.particles[:, :n_moving].astype(np.float64)
            ridge = self.risk.l2 * np.einsum("ij,ij->i", moving, moving)
            energy: NDArray[np.float64] = whole.value_and_gradient(self.particles)[0].astype(np.float64) + ridge
            return (first - last) * energy

        for reached in self._rungs(change):
            self.temperature = temperature if reached == 1 else 1 / (first + reached * (last - first))
            self.refresh(self.dual)

    def _rungs(self, change: Callable[[], NDArray[np.float64]]) -> Iterator[float]:
        """Shares of the way from one law to another, in steps that keep the effective sample size.

        ``change()`` is the logarithm of the ratio of their densities at the particles, which are weighted for each
        rung and have to be refreshed there.
        """
        reached = 0.0
        while reached < 1:
            values, before = change(), self.log_weights
            step = 1 - reached
            if self.effective_share(before + step * values) < self.solver.effective_sample_size:
                low, high = 0.0, step
                for _ in range(30):
                    step = (low + high) / 2
                    enough = self.effective_share(before + step * values) >= self.solver.effective_sample_size
                    low, high = (step, high) if enough else (low, step)
                step = low
            reached = min(1.0, reached + step)
            self.log_weights = before + step * values
            yield reached

    def refresh(self, dual: NDArray[np.float64]) -> None:
        """Particles of equal weight for the Gibbs law of these dual variables, from those with weights."""
        solver, risk = self.solver, self.risk
        self.log_partition += self._log_mass(self.log_weights)
        share, resampled = risk.ranks.share(len(self.particles)), self.particles[self._resampled()]
        potential = risk.alone().linearised(dual, num_threads=solver.num_threads)
        sampler = GibbsSampler(potential, self.temperature, self.key, num_threads=solver.num_threads, share=share)
        chains = sampler.start(resampled, None if math.isnan(self.step_size) else self.step_size, self.moves)
        most = _MOST_MOVES_COUPLED if self.coupled else _MOST_MOVES
        chains = sampler.move_until_forgotten(chains, self._watched, most)
        self.particles, self.log_weights, self.visits = sampler.points(chains), np.zeros(len(resampled)), 0
        self.step_size, self.moves, self.acceptance = chains.step_size, chains.moves, chains.acceptance
        if self.coupled:
            self.variance_bound = min(_SAFETY * self._variance(), self.largest_variance)

    def _variance(self) -> float:
        """Largest variance of a neuron's outputs in any direction, over some rows."""
        largest = 0.0
        for outputs in self._neurons(self.particles):
            centred = outputs.astype(np.float64) - outputs.mean(axis=0)
            covariance = np.einsum("mj,mk->jk", centred, centred) / len(centred)
            largest = max(largest, float(np.linalg.eigvalsh(covariance)[-1]))
        return largest

    def _log_mass(self, log_weights: NDArray[np.float64]) -> float:
        """Logarithm of the mean of the weights, averaged over groups."""
        largest = self._by_group(np.maximum.reduceat, log_weights)
        total = self._by_group(np.add.reduceat, np.exp(log_weights - np.repeat(largest, self.groups)))
        # A sum and not a product of BLAS, whose bits may depend on threads.
        return float(np.sum((largest + np.log(total / self.groups)) * self.groups)) / len(self.particles)

    def weights(self, log_weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights of sum 1 in which a group of frozen signs keeps its share of the particles."""
        largest = self._by_group(np.maximum.reduceat, log_weights)
        weights = np.exp(log_weights - np.repeat(largest, self.groups))
        share = self.groups / (len(log_weights) * self._by_group(np.add.reduceat, weights))
        return weights * np.repeat(share, self.groups)

    def effective_share(self, log_weights: NDArray[np.float64]) -> float:
        squares = self._by_group(np.add.reduceat, self.weights(log_weights) ** 2)
        return float(np.min(self.groups / squares) / len(log_weights) ** 2)

    def _by_group(self, reduce: Callable[..., NDArray[np.float64]], values: NDArray[np.float64]) -> FloatArray:
        return reduce(values, np.cumsum(self.groups) - self.groups)

    def _resampled(self) -> NDArray[np.int64]:
        """Systematic resampling within each group: every particle about N times its weight times."""
        place = noise.Place(self.key, self.moves, num_threads=self.solver.num_threads).beside("resampling")
        uniform = place.uniforms(len(self.groups), 1)[:, 0]
        expected = len(self.particles) * self.weights(self.log_weights)
        picked: list[NDArray[np.int64]] = []
        for size, first, offset in zip(self.groups, np.cumsum(self.groups) - self.groups, uniform, strict=True):
            picked.append(first + systematic(expected[first : first + size], size, offset))
        return np.concatenate(picked)

    def _neurons(self, points: FloatArray) -> FloatArray:
        """Neurons at some rows, shape (rows, N, K)."""
        inputs = self.risk.inputs
        rows = np.linspace(0, len(inputs) - 1, min(_WATCHED_ROWS, len(inputs))).astype(int)
        neurons = self.risk.model.neurons(points, inputs[rows].astype(points.dtype), self.solver.num_threads)
        return neurons.reshape(len(rows), len(points), -1)

    def _watched(self, chains: Chains) -> NDArray[np.float64]:
        columns = np.moveaxis(self._neurons(chains.points), 1, 0).reshape(len(chains.points), -1)
        return np.column_stack([chains.values, columns]).astype(np.float64)


def _groups(frozen: FloatArray) -> NDArray[np.int64]:
    """Sizes of the runs of equal rows."""
    starts = np.flatnonzero(np.any(frozen[1:] != frozen[:-1], axis=1)) + 1
    return np.diff(np.concatenate([[0], starts, [len(frozen)]])).astype(np.int64)
