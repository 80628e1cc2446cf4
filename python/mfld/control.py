"""Solutions of control problems: whether they are optimal at each node, and control with a receding horizon."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import noise, validation
from mfld.algorithms import MFLD
from mfld.annealing import Annealer
from mfld.floating import underflow_is_zero
from mfld.noise import Place
from mfld.objectives import ControlProblem, Measure, Potential
from mfld.references import Gaussian
from mfld.state import Cloud
from mfld.validation import FloatArray

__all__ = ["ClosedLoop", "Optimality", "RecedingHorizon", "optimality"]

_N_GROUPS = 32  # of particles on a ladder
_N_PERMUTATIONS = 199
_MOST_COMPARED = 1000  # particles of a node
_STAY = 32  # moves at the end of a ladder
_MOVES_OF_A_RUNG, _KEPT = 2, 0.75
_WIDER = 4.0  # times the second moment of the controls: variance of the Gaussian that chains come from
_SMALLEST_RIDGE = 1e-100
_DRAWS = 2**15  # uniform ones, on bounded domains
_AGREEMENT = 0.02  # of both estimates of log Z, beside their errors
_LARGEST_ERROR = 0.25
_FEWEST = 200  # effective draws, on bounded domains


@dataclass(frozen=True, eq=False, repr=False)
class Optimality:
    """Residual of the optimality condition: each node's measure against the Gibbs law of its Hamiltonian.

    Attributes
    ----------
    nodes : ndarray of int, shape (k,)
    distances : ndarray, shape (k,)
        Energy distance ``2 E|a - a'| - E|a - b| - E|a' - b'|`` of a node's controls a and Gibbs draws a', without bias:
        0 on average where the laws are equal.
    noise : ndarray, shape (k,)
        Largest distance of 199 random splits of both together: what chance alone leaves.
    p_value : float
        Of all nodes together: the share of splits whose sum of distances is as large. 0.005 is the least.
    mixed : ndarray of bool, shape (k,)
        Whether the draws count as such: the way down the ladder and back agree on the partition function.
    particles : ndarray, shape (k, n_chains, p)
        The draws.

    `optimality` has an example.
    """

    nodes: NDArray[np.int64]
    distances: FloatArray
    noise: FloatArray
    p_value: float
    mixed: NDArray[np.bool_]
    particles: FloatArray

    @property
    def holds(self) -> bool:
        """True where all draws are mixed and no difference shows beyond chance."""
        return bool(self.mixed.all()) and self.p_value > 1 / (_N_PERMUTATIONS + 1)

    def __repr__(self) -> str:
        worst = int(np.argmax(self.distances))
        mixed = f"{int(self.mixed.sum())} of {len(self.nodes)} nodes mixed"
        return (
            f"Optimality({'holds' if self.holds else 'does not hold'} at p={self.p_value:.3g}, {mixed}, largest energy "
            f"distance {self.distances[worst]:.3g} at node {self.nodes[worst]}, where chance leaves "
            f"{self.noise[worst]:.3g})"
        )


@underflow_is_zero
def optimality(
    problem: ControlProblem,
    measure: Measure,
    temperature: float,
    *,
    nodes: ArrayLike | None = None,
    n_chains: int = 512,
    most_moves: int = 8192,
    seed: int = 0,
) -> Optimality:
    """Test of each node for its own proximal Gibbs law, ``nu_k ~ exp(-H_k / temperature)``, by independent chains.

    At a minimiser this holds at every node. The law is sampled anew, by annealing from a wide Gaussian
    (`mfld.annealing`) so that modes far apart are found, and on bounded domains by weighted uniform draws; the controls
    are compared with it by the energy distance, and the difference with what random splits of both leave. A run has
    biases of its step size and of 1/N, which show where N is large. Nodes of a non-convex problem may all be optimal
    given the others without the whole being so. Source: Hu, Kazeykina, Ren 2019, "Mean-field Langevin system, optimal
    control and deep neural networks".

    Parameters
    ----------
    problem : ControlProblem
    measure : Cloud or array_like, shape (n_nodes, N, p), or (N, p) where it is shared
        Of equal weights.
    temperature : float
        Positive.
    nodes : array_like of int, optional
        Which to look at; by default all.
    n_chains : int
        Particles of a node: a multiple of 32.
    most_moves : int
        Of each.
    seed : int

    Returns
    -------
    Optimality

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> problem = mfld.ControlProblem(
    ...     lambda t, x, a: a, lambda t, x, a: a[:, 0] ** 2 / 2, lambda x: x[:, 0] ** 2 / 2, 1.0, 2, 1.0, n_controls=1,
    ...     dynamics_jacobians=lambda t, x, a: (np.zeros((len(x), 1, 1)), np.ones((len(x), 1, 1))),
    ...     running_gradients=lambda t, x, a: (0 * x, a),
    ...     terminal_gradient=lambda x: x,
    ... )
    >>> optimum = -0.5 + 0.1 * np.random.default_rng(0).normal(size=(2, 500, 1))
    >>> mfld.control.optimality(problem, optimum, temperature=0.01).holds
    True
    >>> mfld.control.optimality(problem, optimum + 0.1, temperature=0.01).holds
    False
    """
    validation.instance("problem", problem, ControlProblem, "a ControlProblem")
    temperature = validation.real("temperature", temperature, positive=True)
    n_chains = validation.integer("n_chains", n_chains, 2 * _N_GROUPS)
    if n_chains % _N_GROUPS:
        raise ValueError(f"n_chains must be a multiple of {_N_GROUPS}, got {n_chains}")
    most_moves = validation.integer("most_moves", most_moves, 128, validation.MAX_STEP)
    seed = validation.seed(seed)
    cloud = problem.cloud(measure)
    if cloud.weights is not None:
        raise ValueError("measure must have particles of equal weight (weights=None)")
    if len(cloud.particles[() if problem.shared else 0]) < 2:
        raise ValueError("measure must have at least 2 particles for each node, to be compared with others")
    n_nodes = 1 if problem.shared else problem.n_nodes
    chosen = np.arange(n_nodes) if nodes is None else validation.rows("nodes", nodes, n_nodes)
    distances, splits, mixed, drawn = [], [], [], []
    for number in chosen:
        node = int(number)
        controls = cloud.particles if problem.shared else cloud.particles[node]
        place = Place.of(seed, node).beside("certificate")
        found, good = _gibbs(problem.hamiltonian(cloud, node), temperature, controls, n_chains, most_moves, place)
        distance, by_chance = _energy_distance(controls[:_MOST_COMPARED].astype(np.float64), found, place)
        distances.append(distance)
        splits.append(by_chance)
        mixed.append(good)
        drawn.append(found)
    total = np.sum(splits, axis=0)
    p_value = float((1 + np.sum(total >= np.sum(distances))) / (1 + _N_PERMUTATIONS))
    return Optimality(chosen, np.array(distances), np.max(splits, axis=1), p_value, np.array(mixed), np.stack(drawn))


def _gibbs(
    potential: Potential, temperature: float, controls: FloatArray, n_chains: int, most_moves: int, place: Place
) -> tuple[FloatArray, bool]:
    """Draws of the Gibbs law of a potential, shape (n_chains, p), and whether they count as such."""
    if not potential.space.flat:
        return _on_domain(potential, temperature, n_chains, place)
    wide = controls.astype(np.float64)
    moment = float(np.mean(wide**2))
    # The law is that of the potential, whatever part of it is called a ridge: chains come from a Gaussian of that part.
    l2 = temperature / (2 * _WIDER * moment) if moment > 0 else temperature
    if not l2 > _SMALLEST_RIDGE:
        raise ValueError(
            f"temperature must be above {_SMALLEST_RIDGE:g} times the square of controls, got {temperature}"
        )
    share = l2 - potential.l2

    def value_and_gradient(points: FloatArray) -> tuple[FloatArray, FloatArray]:
        values, gradient = potential.value_and_gradient(points)
        return values - share * np.sum(points**2, axis=1), gradient - 2 * share * points

    shifted = Potential(
        lambda points: value_and_gradient(points)[1],
        lambda points: value_and_gradient(points)[0],
        value_and_gradient=value_and_gradient,
        space=potential.space,
        reference=Gaussian(l2),
    )
    size = n_chains // _N_GROUPS
    annealer = Annealer(shifted, temperature, size, place)
    start = np.zeros((n_chains, potential.n_coordinates))
    n_moves, kept, moves = _MOVES_OF_A_RUNG, _KEPT, 0
    points: FloatArray = start
    good = False
    while not good:
        ladder, spent = annealer.ladder(start, n_moves, kept, most_moves - moves)
        moves += spent
        if ladder is None or moves + 2 * ladder.moves + _STAY > most_moves:
            break
        now = annealer.down(annealer.begin(start, ladder, moves), ladder)
        for k in range(_STAY):
            now = annealer.moved(now, ladder.rungs[-1], k)
        # Each group counts by its estimate of the partition function.
        down = now.log_ratio
        points = _systematic(now.points, np.repeat(np.exp(down - down.max()), size), n_chains, place)
        now = annealer.back(now, ladder)
        up, moves = now.log_ratio, now.moves
        error = math.hypot(_log_error(down), _log_error(up))
        good = error < _LARGEST_ERROR and abs(_log_mean(down) + _log_mean(up)) < _AGREEMENT + 4 * error
        n_moves, kept = 2 * n_moves, (1 + kept) / 2
    return points, good


def _on_domain(potential: Potential, temperature: float, n_chains: int, place: Place) -> tuple[FloatArray, bool]:
    if math.isinf(potential.space.volume):
        raise ValueError(f"problem must have controls in Euclidean space or on a bounded domain, got {potential.space}")
    points = potential.space.draw(place, _DRAWS, "float64")
    exponent = -potential(points) / temperature
    weights = np.exp(exponent - exponent.max())
    effective = float(weights.sum() ** 2 / np.sum(weights**2))
    return _systematic(points, weights, n_chains, place), effective >= _FEWEST


def _systematic(points: FloatArray, weights: FloatArray, n: int, place: Place) -> FloatArray:
    heights = np.cumsum(weights) / np.sum(weights)
    offset = float(place.beside("annealing").uniforms(1, 1, stream="init")[0, 0])
    rows = np.searchsorted(heights, (np.arange(n) + offset) / n)
    return points[np.minimum(rows, len(points) - 1)].astype(np.float64)


def _log_mean(values: FloatArray) -> float:
    return float(values.max() + np.log(np.mean(np.exp(values - values.max()))))


def _log_error(values: FloatArray) -> float:
    weights = np.exp(values - values.max())
    return float(weights.std(ddof=1) / (weights.mean() * math.sqrt(len(weights))))


def _energy_distance(a: FloatArray, b: FloatArray, place: Place) -> tuple[float, FloatArray]:
    """Energy distance of two samples without bias, and those of random splits of both together."""
    both, n, m = np.concatenate([a, b]), len(a), len(b)
    apart: FloatArray = np.sqrt(np.sum((both[:, np.newaxis] - both[np.newaxis]) ** 2, axis=2))
    levels = place.beside("resample").uniforms(_N_PERMUTATIONS, n + m, stream="init")
    first = np.zeros((_N_PERMUTATIONS + 1, n + m))
    first[0, :n] = 1
    np.put_along_axis(first[1:], np.argsort(levels, axis=1)[:, :n], 1.0, axis=1)
    second = 1 - first
    along = np.einsum("si,ij->sj", first, apart, optimize=True)
    own, cross = np.sum(along * first, axis=1), np.sum(along * second, axis=1)
    other = apart.sum() - own - 2 * cross
    found = 2 * cross / (n * m) - own / (n * (n - 1)) - other / (m * (m - 1))
    return float(found[0]), found[1:]


@dataclass(frozen=True, eq=False)
class ClosedLoop:
    """Course of a system under control with a receding horizon.

    Attributes
    ----------
    times : ndarray, shape (n_rounds + 1,)
    states : ndarray, shape (n_rounds + 1, d)
    controls : list of Cloud
        Measures of the nodes that were applied in each round, shape (n_applied, N, p).
    costs : ndarray, shape (n_rounds,)
        Cost of each plan, from its state over its whole horizon.

    `RecedingHorizon` has an example.
    """

    times: FloatArray
    states: FloatArray
    controls: list[Cloud]
    costs: FloatArray


@dataclass(frozen=True)
class RecedingHorizon:
    """Control with a receding horizon: solve, apply the first nodes, shift, and start the next solution from there.

    Parameters
    ----------
    problem : ControlProblem
        Without a shared measure. Its horizon is that of each plan.
    solver : MFLD
    n_steps : int
        Steps of each solution but the first.
    n_first : int, optional
        Steps of the first one, which starts from nothing; by default ten times n_steps.
    n_applied : int
        Nodes that are applied before the next plan.
    plant : callable, optional
        ``plant(t, x, controls)``: the state after the controls, shape (n_applied, N, p), from the state x, shape (d,),
        at time t. Default: the dynamics of the problem without noise.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> problem = mfld.ControlProblem(
    ...     lambda t, x, a: a, lambda t, x, a: a[:, 0] ** 2 / 2, lambda x: 5 * x[:, 0] ** 2, 1.0, 4, 1.0, n_controls=1,
    ...     dynamics_jacobians=lambda t, x, a: (np.zeros((len(x), 1, 1)), np.ones((len(x), 1, 1))),
    ...     running_gradients=lambda t, x, a: (0 * x, a),
    ...     terminal_gradient=lambda x: 10 * x,
    ... )
    >>> solver = mfld.MFLD(100, step_size=0.05, temperature=1e-4)
    >>> course = mfld.control.RecedingHorizon(problem, solver, n_steps=20).run([1.0], n_rounds=8)
    >>> bool(abs(course.states[-1, 0]) < 0.2)
    True
    """

    problem: ControlProblem
    solver: MFLD
    n_steps: int
    n_first: int | None = None
    n_applied: int = 1
    plant: Callable[[float, FloatArray, FloatArray], ArrayLike] | None = None

    def __post_init__(self) -> None:
        validation.instance("problem", self.problem, ControlProblem, "a ControlProblem")
        if self.problem.shared:
            raise ValueError("problem must have a measure for each node (shared=False), to be shifted")
        validation.instance("solver", self.solver, MFLD, "an MFLD")
        if self.solver.n_replicates != 1:
            raise ValueError(f"solver must have one replicate, got {self.solver.n_replicates}")
        object.__setattr__(self, "n_steps", validation.integer("n_steps", self.n_steps, 1))
        if self.n_first is not None:
            object.__setattr__(self, "n_first", validation.integer("n_first", self.n_first, 1))
        most = self.problem.n_nodes
        object.__setattr__(self, "n_applied", validation.integer("n_applied", self.n_applied, 1, most))
        if self.plant is not None:
            validation.function("plant", self.plant)

    def run(self, state: ArrayLike, n_rounds: int, seed: int = 0, *, start: float = 0.0) -> ClosedLoop:
        """Course from a state over so many plans.

        Parameters
        ----------
        state : array_like, shape (d,)
        n_rounds : int
        seed : int
            Each round has noise of its own.
        start : float
            Time of the first plan.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit, or the plant returns what is no state.
        DivergenceError
            If particles or states are no longer finite.
        """
        d = self.problem.initial_states.shape[1]
        x = validation.array("state", state, np.float64)
        validation.shape("state", x, (d,), "(length of a state)")
        n_rounds = validation.integer("n_rounds", n_rounds, 1)
        seed, start = validation.seed(seed), validation.real("start", start)
        part = self.problem.horizon / self.problem.n_nodes * self.n_applied
        particles: FloatArray | None = None
        states, costs, controls = [x], [], []
        for number in range(n_rounds):
            t = start + number * part
            plan = self.problem.moved(x, start=t)
            steps = self.n_steps
            if number == 0:
                steps = 10 * self.n_steps if self.n_first is None else self.n_first
            found = self.solver.run(plan, steps, noise.key(seed, number), particles=particles, record_every=steps)
            particles = found.particles
            applied = Cloud(particles[: self.n_applied])
            costs.append(plan.loss(particles))
            controls.append(applied)
            if self.plant is None:
                x = plan.simulate(particles, x[np.newaxis], until=part)[-1, 0]
            else:
                after = self.plant(t, x.copy(), applied.particles)
                x = validation.array("the result of plant", after, np.float64)
                validation.shape("the result of plant", x, (d,), "(length of a state)")
            states.append(x)
            # The last node stands for those that come into view.
            particles = np.concatenate([particles[self.n_applied :], np.repeat(particles[-1:], self.n_applied, axis=0)])
        times = start + part * np.arange(n_rounds + 1)
        return ClosedLoop(times, np.stack(states), controls, np.array(costs))
