"""Relaxed optimal control: a measure of controls at each time, its cost along trajectories, and the exact adjoint."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import noise, references, validation
from mfld import space as spaces
from mfld.autodiff import library, precision
from mfld.errors import BlowUpError
from mfld.objectives.base import Measure, Objective, Potential, SetOnce
from mfld.references import Reference
from mfld.space import Space
from mfld.state import Cloud
from mfld.validation import FloatArray

_Array: TypeAlias = FloatArray  # in float64

_PAIRS_AT_A_TIME = 2**17  # of a state and a control, for which the functions of a user are asked at once
_PROBES = 4  # pairs at which derivatives are compared with differences
_STEP = 6e-6  # of these differences, relative: the third root of the rounding error
_AGREEMENT = 1e-4  # relative to the size of the derivatives


class Tableau(NamedTuple):
    """Explicit Runge-Kutta scheme: stage i is at time ``c_i``, reached along ``a_ij``; a step takes the mean ``b``."""

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    order: int


SCHEMES: Final[dict[str, Tableau]] = {
    "euler": Tableau(((),), (1.0,), (0.0,), 1),
    "midpoint": Tableau(((), (0.5,)), (0.0, 1.0), (0.0, 0.5), 2),
    "rk4": Tableau(((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), (0.0, 0.5, 0.5, 1.0), 4),
}
"""Schemes for the equation of the state, by their names."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """States under a control measure, what they cost, and the adjoint.

    Attributes
    ----------
    times : ndarray, shape (n + 1,)
        Where steps begin, and the end: ``n = n_nodes * steps_per_node``.
    states : ndarray, shape (n + 1, S, d)
        Of S paths.
    adjoints : ndarray, shape (n + 1, S, d)
        ``P = dJ_s / dX`` of the cost of each path in its state: at the end the gradient of the terminal cost.
    costs : ndarray, shape (S,)
        Running and terminal cost of each path.

    Examples
    --------
    >>> import mfld
    >>> problem = mfld.ControlProblem(
    ...     lambda t, x, a: a, None, lambda x: x[:, 0] ** 2, horizon=1.0, n_nodes=2, initial_states=1.0, n_controls=1,
    ...     dynamics_jacobians=lambda t, x, a: (0 * x[:, :, None], 1 + 0 * a[:, :, None]),
    ...     terminal_gradient=lambda x: 2 * x,
    ... )
    >>> found = problem.trajectory([[[1.0]], [[0.0]]])
    >>> found.states[:, 0, 0], found.adjoints[:, 0, 0], found.costs
    (array([1. , 1.5, 1.5]), array([3., 3., 3.]), array([2.25]))
    """

    times: _Array
    states: _Array
    adjoints: _Array
    costs: _Array


class _Stage(NamedTuple):
    """Place where the functions are asked: node, time, states (S, d), and the weight of the running cost."""

    node: int
    time: float
    states: _Array
    weight: float


class _Pulled(NamedTuple):
    """A stage with the cotangents of its drift (S, d) and of its running cost (S,)."""

    stage: _Stage
    of_drift: _Array
    of_cost: _Array


class _Functions(ABC):
    """Drift, costs and their derivatives, for pairs of a state (M, d) and a control (M, p)."""

    @abstractmethod
    def evaluate(self, t: float, x: _Array, a: _Array) -> tuple[_Array, _Array]:
        """Drift (M, d) and running cost (M,)."""

    @abstractmethod
    def pull_back(self, t: float, x: _Array, a: _Array, g: _Array, w: _Array) -> tuple[_Array, _Array]:
        """Gradients of ``g . drift + w cost`` of each pair, in x and in a."""

    @abstractmethod
    def terminal(self, x: _Array) -> _Array:
        """Terminal cost (M,)."""

    @abstractmethod
    def terminal_gradient(self, x: _Array) -> _Array:
        """Its gradient (M, d)."""


class ControlProblem(SetOnce, Objective):
    """Relaxed optimal control: at each node of time a measure of controls.

    ::

        minimise  E [ int_0^T E_nu_t L(t, X_t, a) dt + G(X_T) ] + l2 int E_nu_t |a|**2 dt + temperature int Ent(nu_t) dt
        over nu,  dX = E_nu_t phi(t, X, a) dt + sigma dW

    Controls are constant within ``n_nodes`` equal parts of the horizon, and members of the measure: particles have the
    shape (n_nodes, N, p), or (N, p) where all nodes share one measure. The minimiser at node k is the Gibbs law of the
    Hamiltonian there, ``H_k(a) = L + P . phi``, averaged over the part and over paths. P is the exact transpose of the
    discrete scheme, and gradients are per unit of time, so that a step size suits any number of nodes. States, costs
    and derivatives are computed in float64, whatever the precision of the particles. Source: Hu, Kazeykina, Ren 2019,
    "Mean-field Langevin system, optimal control and deep neural networks".

    Parameters
    ----------
    dynamics : callable
        ``phi(t, x, a)``: rates of states x, shape (M, d), under controls a, shape (M, p), row by row: shape (M, d).
    running_cost : callable or None
        ``L(t, x, a)``: shape (M,).
    terminal_cost : callable or None
        ``G(x)``: shape (M,).
    horizon : float
        T, positive.
    n_nodes : int
        Number of parts with a measure each.
    initial_states : float or array_like, shape (d,) or (S, d)
        Where paths begin: one state, or an environment of many, over which costs are averaged. Batches are rows of it.
    n_controls : int, optional
        p; or ``space``.
    dynamics_jacobians : callable
        ``(dphi/dx, dphi/da)`` at t, x, a: shapes (M, d, d) and (M, d, p). `from_jax` and `from_torch` need none.
    running_gradients : callable, optional
        ``(dL/dx, dL/da)``: shapes (M, d) and (M, p); where there is a running cost.
    terminal_gradient : callable, optional
        ``dG/dx``: shape (M, d); where there is a terminal cost.
    scheme : {"euler", "midpoint", "rk4"}
        For the state, of order 1, 2 and 4; the running cost is integrated along.
    steps_per_node : int
        Steps of the scheme within a part.
    state_noise : float or array_like, shape (d,)
        sigma; its normals are drawn once, from ``seed``, and are the same for all controls (common random numbers).
    n_paths : int
        Paths from each initial state, with noise of their own.
    shared : bool
        One measure for all nodes: weights that do not change with time.
    l2 : float
        Coefficient of ``|a|**2`` per unit of time, without a factor 1/2.
    sample_weight : array_like, shape (S,), optional
        Weights of the initial states; normalised to sum 1. Default: 1/S each.
    space, reference
        In place of n_controls and l2, like ``Space(domain=[Box([-1], [1])])`` for bounded controls.
    seed : int
        Of the noise of the states.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, a function returns another shape, or derivatives disagree
        with finite differences at random pairs; the message names them.
    BlowUpError
        Later, if a state is no longer finite: with its node and where it was last.

    Examples
    --------
    Steer ``X' = a`` from 1 towards 0 at a cost of ``a**2 / 2``; the optimum has the mean ``-X_0 / (1 + T)`` and the
    variance ``temperature``:

    >>> import numpy as np
    >>> import mfld
    >>> problem = mfld.ControlProblem(
    ...     lambda t, x, a: a,
    ...     lambda t, x, a: a[:, 0] ** 2 / 2,
    ...     lambda x: x[:, 0] ** 2 / 2,
    ...     horizon=1.0,
    ...     n_nodes=4,
    ...     initial_states=1.0,
    ...     n_controls=1,
    ...     dynamics_jacobians=lambda t, x, a: (np.zeros((len(x), 1, 1)), np.ones((len(x), 1, 1))),
    ...     running_gradients=lambda t, x, a: (0 * x, a),
    ...     terminal_gradient=lambda x: x,
    ... )
    >>> result = mfld.MFLD(1000, step_size=0.1, temperature=0.01).run(problem, n_steps=100)
    >>> result.particles.shape, result.particles.mean(axis=(1, 2)).round(1)
    ((4, 1000, 1), array([-0.5, -0.5, -0.5, -0.5], dtype=float32))
    """

    any_precision = True

    def __init__(
        self,
        dynamics: Callable[[float, FloatArray, FloatArray], ArrayLike],
        running_cost: Callable[[float, FloatArray, FloatArray], ArrayLike] | None,
        terminal_cost: Callable[[FloatArray], ArrayLike] | None,
        horizon: float,
        n_nodes: int,
        initial_states: ArrayLike,
        *,
        n_controls: int | None = None,
        dynamics_jacobians: Callable[[float, FloatArray, FloatArray], tuple[ArrayLike, ArrayLike]],
        running_gradients: Callable[[float, FloatArray, FloatArray], tuple[ArrayLike, ArrayLike]] | None = None,
        terminal_gradient: Callable[[FloatArray], ArrayLike] | None = None,
        scheme: str = "euler",
        steps_per_node: int = 1,
        state_noise: float | ArrayLike = 0.0,
        n_paths: int = 1,
        shared: bool = False,
        l2: float = 0.0,
        sample_weight: ArrayLike | None = None,
        space: Space | None = None,
        reference: Reference | None = None,
        seed: int = 0,
    ) -> None:
        functions = _InNumPy(
            dynamics, running_cost, terminal_cost, dynamics_jacobians, running_gradients, terminal_gradient
        )
        self._begin(
            functions,
            horizon,
            n_nodes,
            initial_states,
            n_controls=n_controls,
            scheme=scheme,
            steps_per_node=steps_per_node,
            state_noise=state_noise,
            n_paths=n_paths,
            shared=shared,
            l2=l2,
            sample_weight=sample_weight,
            space=space,
            reference=reference,
            seed=seed,
        )
        self._check_derivatives()

    @classmethod
    def from_jax(
        cls,
        dynamics: Callable[..., Any],
        running_cost: Callable[..., Any] | None,
        terminal_cost: Callable[..., Any] | None,
        horizon: float,
        n_nodes: int,
        initial_states: ArrayLike,
        **arguments: Any,
    ) -> ControlProblem:
        """Problem from functions in JAX, which sees to the derivatives.

        Parameters
        ----------
        dynamics, running_cost, terminal_cost : callable
            As in `ControlProblem`, of JAX arrays; traced once for each shape, with 64-bit types enabled. Rows have to
            stand for themselves.
        horizon, n_nodes, initial_states, **arguments
            As in `ControlProblem`, without the derivatives.

        Raises
        ------
        ImportError
            If JAX is not installed.
        TypeError, ValueError
            As in `ControlProblem`.

        Examples
        --------
        >>> import mfld
        >>> try:
        ...     import jax
        ... except ImportError:
        ...     pass
        ... else:
        ...     fall = mfld.ControlProblem.from_jax(lambda t, x, a: a, None, lambda x: x[:, 0] ** 2, 1.0, 2, 1.0,
        ...                                         n_controls=1)
        ...     assert fall.gradient([[[0.0]], [[0.0]]]).tolist() == [[[2.0]], [[2.0]]]
        """
        return cls._automatic(
            _InJax(dynamics, running_cost, terminal_cost), horizon, n_nodes, initial_states, arguments
        )

    @classmethod
    def from_torch(
        cls,
        dynamics: Callable[..., Any],
        running_cost: Callable[..., Any] | None,
        terminal_cost: Callable[..., Any] | None,
        horizon: float,
        n_nodes: int,
        initial_states: ArrayLike,
        **arguments: Any,
    ) -> ControlProblem:
        """Problem from functions in torch, which sees to the derivatives.

        Parameters
        ----------
        dynamics, running_cost, terminal_cost : callable
            As in `ControlProblem`, of float64 tensors on the CPU. Rows have to stand for themselves.
        horizon, n_nodes, initial_states, **arguments
            As in `ControlProblem`, without the derivatives.

        Raises
        ------
        ImportError
            If torch is not installed.
        TypeError, ValueError
            As in `ControlProblem`.

        Examples
        --------
        >>> import mfld
        >>> try:
        ...     import torch
        ... except ImportError:
        ...     pass
        ... else:
        ...     fall = mfld.ControlProblem.from_torch(lambda t, x, a: a, None, lambda x: x[:, 0] ** 2, 1.0, 2, 1.0,
        ...                                           n_controls=1)
        ...     assert fall.gradient([[[0.0]], [[0.0]]]).tolist() == [[[2.0]], [[2.0]]]
        """
        functions = _InTorch(dynamics, running_cost, terminal_cost)
        return cls._automatic(functions, horizon, n_nodes, initial_states, arguments)

    @classmethod
    def _automatic(
        cls, functions: _Functions, horizon: float, n_nodes: int, initial_states: ArrayLike, arguments: dict[str, Any]
    ) -> ControlProblem:
        for name in ("dynamics_jacobians", "running_gradients", "terminal_gradient"):
            if name in arguments:
                raise TypeError(f"{name} must be left out: it is made from the functions")
        problem = cls.__new__(cls)
        problem._begin(functions, horizon, n_nodes, initial_states, **arguments)
        return problem

    def _begin(
        self,
        functions: _Functions,
        horizon: float,
        n_nodes: int,
        initial_states: ArrayLike,
        *,
        n_controls: int | None = None,
        scheme: str = "euler",
        steps_per_node: int = 1,
        state_noise: float | ArrayLike = 0.0,
        n_paths: int = 1,
        shared: bool = False,
        l2: float = 0.0,
        sample_weight: ArrayLike | None = None,
        space: Space | None = None,
        reference: Reference | None = None,
        seed: int = 0,
    ) -> None:
        self._functions = functions
        self.horizon = validation.real("horizon", horizon, positive=True)
        self.n_nodes = validation.integer("n_nodes", n_nodes, 1)
        self.scheme = validation.choice("scheme", scheme, SCHEMES)
        self.steps_per_node = validation.integer("steps_per_node", steps_per_node, 1)
        self.shared = validation.boolean("shared", shared)
        self.n_paths = validation.integer("n_paths", n_paths, 1)
        self.seed = validation.seed(seed)
        if n_controls is None and space is None:
            raise ValueError("n_controls must be given, or space; got neither")
        if n_controls is not None:
            n_controls = validation.integer("n_controls", n_controls, 1)
        self.space = spaces.given(n_controls, None, space)
        self.reference = references.given(l2, reference, self.space)
        self.members = () if self.shared else (self.n_nodes,)
        states = np.atleast_1d(validation.array("initial_states", initial_states, np.float64))
        states = states[np.newaxis] if states.ndim == 1 else states
        validation.shape("initial_states", states, ("S", "d"), "(initial states, length of a state)")
        self.initial_states = validation.frozen(states)
        s = None
        if sample_weight is not None:
            s = validation.weights("sample_weight", sample_weight, (len(states),), "to match initial_states", "float64")
        self.sample_weight = s
        self.state_noise = validation.frozen(_noise_of("state_noise", state_noise, states.shape[1]))
        if n_paths > 1 and not self.state_noise.any():
            raise ValueError(f"n_paths must be 1 without state_noise: all paths would be equal; got {n_paths}")
        probe = np.zeros((1, self.n_coordinates))
        self._evaluated(0.0, states[:1], probe)
        _result("terminal_cost", functions.terminal(states[:1].copy()), (1,))

    def __repr__(self) -> str:
        s, d = self.initial_states.shape
        paths = s * self.n_paths
        return (
            f"ControlProblem({'one measure for ' if self.shared else ''}{self.n_nodes} nodes to {self.horizon:g}, "
            f"{paths} path{'s' if paths > 1 else ''} of {d} coordinate{'s' if d > 1 else ''}, "
            f"controls of {self.n_coordinates}, {self.scheme}, l2={self.l2:g})"
        )

    @property
    def n_samples(self) -> int:  # type: ignore[override]
        """Number of initial states."""
        return len(self.initial_states)

    @property
    def node_times(self) -> _Array:
        """Times where the parts of the nodes begin, and the horizon: shape (n_nodes + 1,)."""
        return np.linspace(0, self.horizon, self.n_nodes + 1)

    def loss(self, measure: Measure) -> float:
        """Expected cost ``E [ int E_nu_t L dt + G(X_T) ]`` over the paths."""
        return self._cost(self.cloud(measure), None)

    def loss_of_batch(self, measure: Measure, batch: ArrayLike) -> float:
        return self._cost(self.cloud(measure), batch)

    def ridge(self, measure: Measure) -> float:
        """``l2 int_0^T E_nu_t |a|**2 dt``."""
        cloud = self.cloud(measure)
        energy = self.reference.energy(cloud.particles[..., : self.n_moving].astype(np.float64))
        means = np.average(energy, axis=-1, weights=cloud.weights)
        return self.horizon * float(np.mean(means))

    def loss_gradient(self, measure: Measure, batch: ArrayLike | None = None) -> FloatArray:
        """Gradient of the Hamiltonian of each node at its controls: per unit of time, see `Objective.loss_gradient`."""
        cloud = self.cloud(measure)
        hamiltonians = _Hamiltonians(self, self._pulled(cloud, batch))
        return hamiltonians.value_and_gradient(cloud.particles, value=False)[1]

    def first_variation(self, measure: Measure, batch: ArrayLike | None = None) -> Potential:
        """Hamiltonians of all nodes as a potential, ridge included, at points of shape (n_nodes, M, p).

        Of a shared measure it is their mean over time, at points of shape (M, p).
        """
        return self._potential(_Hamiltonians(self, self._pulled(self.cloud(measure), batch)), self.members)

    def hamiltonian(self, measure: Measure, node: int) -> Potential:
        """Hamiltonian of a node, ``a -> L + P . phi`` averaged over its part and the paths; with the ridge, frozen.

        Parameters
        ----------
        measure : Cloud or array_like, shape (n_nodes, N, p)
        node : int
            Of a shared measure 0, for the mean over time.

        Returns
        -------
        Potential
            ``exp(-potential / temperature)`` is the optimal measure of this node where the others stand still.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit.
        """
        node = validation.integer("node", node, 0, 0 if self.shared else self.n_nodes - 1)
        pulled = [one for one in self._pulled(self.cloud(measure), None) if self.shared or one.stage.node == node]
        return self._potential(_Hamiltonians(self, pulled), ())

    def trajectory(self, measure: Measure) -> Trajectory:
        """States of all paths under a measure, their costs, and the adjoint.

        Parameters
        ----------
        measure : Cloud or array_like, shape (n_nodes, N, p), or (N, p) where it is shared

        Returns
        -------
        Trajectory

        Raises
        ------
        TypeError, ValueError
            If the particles do not fit.
        BlowUpError
            If a state is no longer finite.
        """
        cloud = self.cloud(measure)
        stages, states, costs = self._forward(cloud, None)
        _, adjoints = self._backward(cloud, stages, states[-1], np.ones(states.shape[1]))
        return Trajectory(np.linspace(0, self.horizon, len(states)), states, adjoints, costs)

    def simulate(self, measure: Measure, initial_states: ArrayLike, until: float | None = None) -> _Array:
        """States from other initial states under a measure, without noise: at the ends of all steps.

        Parameters
        ----------
        measure : Cloud or array_like, shape (n_nodes, N, p), or (N, p) where it is shared
        initial_states : array_like, shape (S, d)
        until : float, optional
            End of a whole number of nodes; by default the horizon.

        Returns
        -------
        ndarray, shape (n + 1, S, d)

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit.
        BlowUpError
            If a state is no longer finite.
        """
        d = self.initial_states.shape[1]
        states = validation.array("initial_states", initial_states, np.float64)
        validation.shape("initial_states", states, ("S", d), "(initial states, length of a state)")
        nodes = self.n_nodes
        if until is not None:
            part = self.horizon / self.n_nodes
            nodes = round(validation.real("until", until, positive=True) / part)
            if nodes < 1 or nodes > self.n_nodes or abs(nodes * part - until) > 1e-9 * self.horizon:
                raise ValueError(f"until must be a multiple of {part:g} up to {self.horizon:g}, got {until}")
        return self._along(self.cloud(measure), states, None, nodes)[1]

    def moved(self, initial_states: ArrayLike, start: float = 0.0) -> ControlProblem:
        """The same problem from other initial states, of which it may have another number, and another starting time.

        Parameters
        ----------
        initial_states : array_like, shape (d,) or (S, d)
        start : float
            Time that the functions are told at its beginning.

        Raises
        ------
        TypeError, ValueError
            If the states do not fit.
        """
        functions = self._functions if start == 0 else _Later(self._functions, validation.real("start", start))
        states = np.atleast_2d(validation.array("initial_states", initial_states, np.float64))
        validation.shape("initial_states", states, ("S", self.initial_states.shape[1]), "to match the problem")
        other = ControlProblem.__new__(type(self))
        other._begin(
            functions,
            self.horizon,
            self.n_nodes,
            states,
            scheme=self.scheme,
            steps_per_node=self.steps_per_node,
            state_noise=self.state_noise,
            n_paths=self.n_paths,
            shared=self.shared,
            space=self.space,
            reference=self.reference,
            seed=self.seed,
        )
        return other

    # ---- forward and backward ----------------------------------------------------------------------------------------

    def _cost(self, cloud: Cloud, batch: ArrayLike | None) -> float:
        rows = None if batch is None else validation.rows("batch", batch, self.n_samples)
        return float(np.sum(self._path_weights(rows) * self._forward(cloud, rows)[2]))

    def _path_weights(self, rows: NDArray[np.int64] | None) -> _Array:
        """Weights of the paths, from all initial states or from these rows times n / B."""
        n = self.n_samples
        weights = np.full(n, 1 / n) if self.sample_weight is None else self.sample_weight
        weights = weights if rows is None else weights[rows] * (n / len(rows))
        return np.repeat(weights, self.n_paths) / self.n_paths

    @functools.cached_property
    def _normals(self) -> _Array:
        """Normals of the states, times sigma: shape (steps, S, n_paths, d)."""
        s, d = self.initial_states.shape
        n_steps = self.n_nodes * self.steps_per_node
        place = noise.Place.of(self.seed)
        drawn = [place.ahead(k).normals(s * self.n_paths, d, "float64", "data") for k in range(n_steps)]
        return self.state_noise * np.stack(drawn).reshape(n_steps, s, self.n_paths, d)

    def _forward(self, cloud: Cloud, rows: NDArray[np.int64] | None) -> tuple[list[_Stage], _Array, _Array]:
        """Stages, states (steps + 1, S, d) and costs (S,) of the paths from all initial states, or from these rows."""
        chosen = slice(None) if rows is None else rows
        states = np.repeat(self.initial_states[chosen], self.n_paths, axis=0)
        normals = None
        if self.state_noise.any():
            n_steps, d = len(self._normals), states.shape[1]
            normals = self._normals[:, chosen].reshape(n_steps, -1, d)
        stages, along, costs = self._along(cloud, states, normals, self.n_nodes)
        terminal = _result("terminal_cost", self._functions.terminal(along[-1].copy()), (len(states),))
        return stages, along, costs + terminal

    def _along(
        self, cloud: Cloud, states: _Array, normals: _Array | None, n_nodes: int
    ) -> tuple[list[_Stage], _Array, _Array]:
        tableau, h = SCHEMES[self.scheme], self.horizon / (self.n_nodes * self.steps_per_node)
        stages: list[_Stage] = []
        along, costs = [states], np.zeros(len(states))
        for k in range(n_nodes * self.steps_per_node):
            node, before = k // self.steps_per_node, along[-1]
            controls, weights = self._controls(cloud, node)
            rates: list[_Array] = []
            after = before
            for coefficients, b, c in zip(tableau.a, tableau.b, tableau.c, strict=True):
                at = before
                with np.errstate(over="ignore", invalid="ignore"):
                    for share, rate in zip(coefficients, rates, strict=True):
                        at = at + h * share * rate if share else at
                stage = _Stage(node, (k + c) * h, at, h * b)
                rate, cost = self._mean(stage, controls, weights)
                rates.append(rate)
                with np.errstate(over="ignore", invalid="ignore"):
                    after, costs = after + stage.weight * rate, costs + stage.weight * cost
                stages.append(stage)
            if normals is not None:
                after = after + np.sqrt(h) * normals[k]
            _check_finite(after, costs, before, node, k * h)
            along.append(after)
        return stages, np.stack(along), costs

    def _backward(
        self, cloud: Cloud, stages: Sequence[_Stage], last: _Array, weights: _Array
    ) -> tuple[list[_Pulled], _Array]:
        """All stages with their cotangents, and adjoints (steps + 1, S, d), of the sum of the weighted costs."""
        tableau, h = SCHEMES[self.scheme], self.horizon / (self.n_nodes * self.steps_per_node)
        gradient = _result("terminal_gradient", self._functions.terminal_gradient(last.copy()), last.shape)
        adjoint = weights[:, np.newaxis] * gradient
        found: list[_Pulled] = []
        adjoints, size = [adjoint], len(tableau.b)
        for first in range(len(stages) - size, -1, -size):
            pulled: list[_Array] = []  # what reaches the states of the stages behind the current one, the last first
            for i in reversed(range(size)):
                stage = stages[first + i]
                of_drift = h * tableau.b[i] * adjoint
                for later, reached in zip(range(size - 1, i, -1), pulled, strict=True):
                    share = tableau.a[later][i]
                    of_drift = of_drift + h * share * reached if share else of_drift
                one = _Pulled(stage, of_drift, stage.weight * weights)
                pulled.append(self._in_states(one, *self._controls(cloud, stage.node)))
                found.append(one)
            adjoint = adjoint + sum(pulled[1:], start=pulled[0])
            adjoints.append(adjoint)
        return found[::-1], np.stack(adjoints[::-1])

    def _pulled(self, cloud: Cloud, batch: ArrayLike | None) -> list[_Pulled]:
        rows = None if batch is None else validation.rows("batch", batch, self.n_samples)
        stages, states, _ = self._forward(cloud, rows)
        return self._backward(cloud, stages, states[-1], self._path_weights(rows))[0]

    def _controls(self, cloud: Cloud, node: int) -> tuple[_Array, _Array]:
        """Controls (N, p) and weights (N,) of a node."""
        own = () if self.shared else (node,)
        controls = cloud.particles[own].astype(np.float64)
        n = len(controls)
        return controls, np.full(n, 1 / n) if cloud.weights is None else cloud.weights[own].astype(np.float64)

    def _evaluated(self, t: float, x: _Array, a: _Array) -> tuple[_Array, _Array]:
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found by the step
            drift, cost = self._functions.evaluate(t, x.copy(), a.copy())
        return _result("dynamics", drift, x.shape), _result("running_cost", cost, (len(x),))

    def _mean(self, stage: _Stage, controls: _Array, weights: _Array) -> tuple[_Array, _Array]:
        """Drift (S, d) and running cost (S,), averaged over controls."""
        drift, cost = np.empty_like(stage.states), np.empty(len(stage.states))
        for rows, x, a in _pairs(stage.states, controls):
            each, costs = self._evaluated(stage.time, x, a)
            drift[rows] = np.einsum("snd,n->sd", each.reshape(-1, len(controls), x.shape[1]), weights)
            cost[rows] = np.einsum("sn,n->s", costs.reshape(-1, len(controls)), weights)
        return drift, cost

    def _in_states(self, pulled: _Pulled, controls: _Array, weights: _Array) -> _Array:
        """Gradient (S, d) of the pulled-back sums in the states of a stage."""
        result, n = np.empty_like(pulled.of_drift), len(controls)
        for rows, x, a in _pairs(pulled.stage.states, controls):
            g, w = np.repeat(pulled.of_drift[rows], n, axis=0), np.repeat(pulled.of_cost[rows], n)
            each = self._functions.pull_back(pulled.stage.time, x, a, g, w)[0]
            result[rows] = np.einsum("snd,n->sd", each.reshape(-1, n, x.shape[1]), weights)
        return result

    def _potential(self, hamiltonians: _Hamiltonians, members: tuple[int, ...]) -> Potential:
        potential = Potential(
            lambda points: hamiltonians.value_and_gradient(points, value=False)[1],
            lambda points: hamiltonians.value_and_gradient(points, gradient=False)[0],
            value_and_gradient=hamiltonians.value_and_gradient,
            space=self.space,
            reference=self.reference,
        )
        potential.members = members
        return potential

    # ---- checks of what the user gave --------------------------------------------------------------------------------

    def _check_derivatives(self) -> None:
        """Raise ValueError where derivatives and differences of the functions disagree, with the name and the place."""
        place = noise.Place.of(self.seed)
        n = _PROBES
        rows = np.arange(n) % self.n_samples
        x = self.initial_states[rows] + 0.1 * place.normals(n, self.initial_states.shape[1], "float64", "init")
        a = self.space.draw(place.member(1), n, "float64")
        t = 0.4 * self.horizon
        f, d, p = self._functions, x.shape[1], a.shape[1]
        for k in range(d + 1):  # the drift's coordinates, and the running cost
            g, w = np.zeros((n, d)), np.zeros(n)
            if k < d:
                g[:, k] = 1
            else:
                w[:] = 1
            name = "dynamics" if k < d else "running_cost"
            wrong = "dynamics_jacobians" if k < d else "running_gradients"
            of_states, of_controls = f.pull_back(t, x.copy(), a.copy(), g, w)

            def value(x: _Array, a: _Array, k: int = k) -> _Array:
                drift, cost = self._evaluated(t, x, a)
                return drift[:, k] if k < d else cost

            part = f"{name}[{k}]" if k < d and d > 1 else name
            for letter, given, which in (("x", of_states, 0), ("a", of_controls, 1)):
                for j in range(d if which == 0 else p):
                    self._compare(wrong, part, letter, j, given[:, j], value, (x, a), which, t)
        given = _result("terminal_gradient", f.terminal_gradient(x.copy()), x.shape)
        for j in range(d):
            self._compare(
                "terminal_gradient", "terminal_cost", "x", j, given[:, j], lambda x, a: f.terminal(x), (x, a), 0, None
            )

    def _compare(
        self,
        wrong: str,
        part: str,
        letter: str,
        j: int,
        given: _Array,
        value: Callable[[_Array, _Array], _Array],
        at: tuple[_Array, _Array],
        which: int,
        t: float | None,
    ) -> None:
        width = _STEP * (1 + np.abs(at[which][:, j]))
        above, below = [each.copy() for each in at], [each.copy() for each in at]
        above[which][:, j] += width
        below[which][:, j] -= width
        high, low = value(*above), value(*below)
        difference = (high - low) / (2 * width)
        scale = np.abs(difference) + np.abs(given) + _STEP * (np.abs(high) + np.abs(low))
        off = np.abs(given - difference) > _AGREEMENT * scale + 1e-8
        if off.any():
            i = int(np.argmax(off))
            when = "" if t is None else f" at t={t:g}"
            controls = "" if t is None else f", a={at[1][i].round(3).tolist()}"
            raise ValueError(
                f"{wrong} must be the derivative of {part}: d/d{letter}[{j}] is {given[i]:.6g} by {wrong} and "
                f"{difference[i]:.6g} by finite differences{when}, x={at[0][i].round(3).tolist()}{controls}"
            )


class _Hamiltonians:
    """Hamiltonians of the nodes, per unit of time, from stages with their cotangents: a function of any controls."""

    def __init__(self, problem: ControlProblem, pulled: Sequence[_Pulled]) -> None:
        self._problem, self._pulled = problem, pulled
        nodes = sorted({one.stage.node for one in pulled})
        self._nodes = {node: number for number, node in enumerate(nodes)}
        # A measure for all nodes stands for the whole horizon.
        part = problem.horizon if problem.shared else problem.horizon / problem.n_nodes
        self._per_time = 1 / part

    def value_and_gradient(
        self, points: FloatArray, *, value: bool = True, gradient: bool = True
    ) -> tuple[FloatArray, FloatArray]:
        """Values (..., M) and gradients (..., M, p) at points: (M, p), or (number of nodes, M, p)."""
        problem, wide = self._problem, points.astype(np.float64)
        values, slopes = np.zeros(wide.shape[:-1]), np.zeros(wide.shape)
        for stage, of_drift, of_cost in self._pulled:
            own = () if points.ndim == 2 else (self._nodes[stage.node],)
            controls, n = wide[own], points.shape[-2]
            for rows, x, a in _pairs(stage.states, controls):
                g, w = np.repeat(of_drift[rows], n, axis=0), np.repeat(of_cost[rows], n)
                if value:
                    drift, cost = problem._evaluated(stage.time, x, a)
                    each = np.einsum("md,md->m", g, drift) + w * cost
                    values[own] += self._per_time * each.reshape(-1, n).sum(axis=0)
                if gradient:
                    slope = problem._functions.pull_back(stage.time, x, a, g, w)[1]
                    slopes[own] += self._per_time * slope.reshape(-1, n, slope.shape[1]).sum(axis=0)
        with np.errstate(over="ignore"):  # what overflows is found by the move
            return values.astype(points.dtype), slopes.astype(points.dtype)


def _pairs(states: _Array, controls: _Array) -> Iterator[tuple[slice, _Array, _Array]]:
    """Blocks of states by their rows, each with all controls: pairs in rows, states in the outer order."""
    n = len(controls)
    at_a_time = max(1, _PAIRS_AT_A_TIME // n)
    for first in range(0, len(states), at_a_time):
        rows = slice(first, min(first + at_a_time, len(states)))
        some = states[rows]
        yield rows, np.repeat(some, n, axis=0), np.tile(controls, (len(some), 1))


def _check_finite(after: _Array, costs: _Array, before: _Array, node: int, time: float) -> None:
    finite = np.isfinite(after).all(axis=1) & np.isfinite(costs)
    if not finite.all():
        path = int(np.argmin(finite))
        raise BlowUpError(node, path, time, before[path].tolist())


def _noise_of(name: str, value: float | ArrayLike, d: int) -> _Array:
    sigma = validation.array(name, value, np.float64)
    if sigma.ndim > 0:
        validation.shape(name, sigma, (d,), "(length of a state)")
    if (sigma < 0).any():
        raise ValueError(f"{name} must be at least 0, got {sigma.min():g}")
    return np.broadcast_to(sigma, (d,)).copy()


def _result(name: str, value: object, shape: tuple[int, ...]) -> _Array:
    return validation.returned(f"the result of {name}", value, shape, np.float64, "to match its arguments")


def _two(name: str, value: object) -> tuple[Any, Any]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name} must return two arrays, in x and in a, got {validation.show(value)}")
    return value[0], value[1]


class _InNumPy(_Functions):
    """Functions and derivatives of the user."""

    def __init__(
        self,
        dynamics: Callable[..., Any],
        running_cost: Callable[..., Any] | None,
        terminal_cost: Callable[..., Any] | None,
        dynamics_jacobians: Callable[..., Any],
        running_gradients: Callable[..., Any] | None,
        terminal_gradient: Callable[..., Any] | None,
    ) -> None:
        validation.function("dynamics", dynamics)
        validation.function("dynamics_jacobians", dynamics_jacobians)
        for cost, gradient, of_cost, of_gradient in (
            ("running_cost", "running_gradients", running_cost, running_gradients),
            ("terminal_cost", "terminal_gradient", terminal_cost, terminal_gradient),
        ):
            if of_cost is not None:
                validation.function(cost, of_cost)
                validation.function(gradient, of_gradient)
            elif of_gradient is not None:
                raise ValueError(f"{gradient} must be left out where {cost} is None")
        self._dynamics, self._jacobians = dynamics, dynamics_jacobians
        self._running, self._running_gradients = running_cost, running_gradients
        self._terminal, self._terminal_gradient = terminal_cost, terminal_gradient

    def evaluate(self, t: float, x: _Array, a: _Array) -> tuple[_Array, _Array]:
        cost = np.zeros(len(x)) if self._running is None else self._running(t, x, a)
        return self._dynamics(t, x, a), cost

    def pull_back(self, t: float, x: _Array, a: _Array, g: _Array, w: _Array) -> tuple[_Array, _Array]:
        m, d, p = len(x), x.shape[1], a.shape[1]
        of_states, of_controls = _two("dynamics_jacobians", self._jacobians(t, x, a))
        of_states = _result("dynamics_jacobians, in x,", of_states, (m, d, d))
        of_controls = _result("dynamics_jacobians, in a,", of_controls, (m, d, p))
        in_states, in_controls = np.einsum("mk,mkj->mj", g, of_states), np.einsum("mk,mkj->mj", g, of_controls)
        if self._running_gradients is None:
            return in_states, in_controls
        cost_states, cost_controls = _two("running_gradients", self._running_gradients(t, x, a))
        cost_states = _result("running_gradients, in x,", cost_states, (m, d))
        cost_controls = _result("running_gradients, in a,", cost_controls, (m, p))
        return in_states + w[:, np.newaxis] * cost_states, in_controls + w[:, np.newaxis] * cost_controls

    def terminal(self, x: _Array) -> _Array:
        return np.zeros(len(x)) if self._terminal is None else np.asarray(self._terminal(x))

    def terminal_gradient(self, x: _Array) -> _Array:
        return np.zeros_like(x) if self._terminal_gradient is None else np.asarray(self._terminal_gradient(x))


class _Later(_Functions):
    """Functions that are told a later time."""

    def __init__(self, functions: _Functions, start: float) -> None:
        self._functions, self._start = functions, start

    def evaluate(self, t: float, x: _Array, a: _Array) -> tuple[_Array, _Array]:
        return self._functions.evaluate(self._start + t, x, a)

    def pull_back(self, t: float, x: _Array, a: _Array, g: _Array, w: _Array) -> tuple[_Array, _Array]:
        return self._functions.pull_back(self._start + t, x, a, g, w)

    def terminal(self, x: _Array) -> _Array:
        return self._functions.terminal(x)

    def terminal_gradient(self, x: _Array) -> _Array:
        return self._functions.terminal_gradient(x)


def _check_functions(dynamics: object, running_cost: object, terminal_cost: object) -> None:
    validation.function("dynamics", dynamics)
    for name, function in (("running_cost", running_cost), ("terminal_cost", terminal_cost)):
        if function is not None:
            validation.function(name, function)


class _InJax(_Functions):
    """Functions in JAX, compiled once for each shape."""

    def __init__(
        self,
        dynamics: Callable[..., Any],
        running_cost: Callable[..., Any] | None,
        terminal_cost: Callable[..., Any] | None,
    ) -> None:
        _check_functions(dynamics, running_cost, terminal_cost)
        jax = library("jax", "ControlProblem.from_jax")
        jnp = jax.numpy

        def both(t: Any, x: Any, a: Any) -> Any:
            rates = dynamics(t, x, a)
            return rates, jnp.zeros(len(x)) if running_cost is None else running_cost(t, x, a)

        def pulled(t: Any, x: Any, a: Any, g: Any, w: Any) -> Any:
            return jax.vjp(lambda x, a: both(t, x, a), x, a)[1]((g, w))

        def terminal(x: Any) -> Any:
            return jnp.zeros(len(x)) if terminal_cost is None else terminal_cost(x)

        self._jax = jax
        self._both, self._pulled, self._terminal = jax.jit(both), jax.jit(pulled), jax.jit(terminal)
        self._slope = jax.jit(jax.grad(lambda x: terminal(x).sum()))

    def evaluate(self, t: float, x: _Array, a: _Array) -> tuple[_Array, _Array]:
        with precision(self._jax, x.dtype):
            drift, cost = self._both(t, x, a)
            return np.asarray(drift), np.asarray(cost)

    def pull_back(self, t: float, x: _Array, a: _Array, g: _Array, w: _Array) -> tuple[_Array, _Array]:
        with precision(self._jax, x.dtype):
            of_states, of_controls = self._pulled(t, x, a, g, w)
            return np.asarray(of_states), np.asarray(of_controls)

    def terminal(self, x: _Array) -> _Array:
        with precision(self._jax, x.dtype):
            return np.asarray(self._terminal(x))

    def terminal_gradient(self, x: _Array) -> _Array:
        with precision(self._jax, x.dtype):
            return np.asarray(self._slope(x))


class _InTorch(_Functions):
    """Functions in torch, on the CPU."""

    def __init__(
        self,
        dynamics: Callable[..., Any],
        running_cost: Callable[..., Any] | None,
        terminal_cost: Callable[..., Any] | None,
    ) -> None:
        _check_functions(dynamics, running_cost, terminal_cost)
        self._torch = library("torch", "ControlProblem.from_torch")
        self._dynamics, self._running, self._terminal = dynamics, running_cost, terminal_cost

    def evaluate(self, t: float, x: _Array, a: _Array) -> tuple[_Array, _Array]:
        with self._torch.no_grad():
            drift, cost = self._both(t, *map(self._torch.from_numpy, (x, a)))
            return drift.numpy(), cost.numpy()

    def pull_back(self, t: float, x: _Array, a: _Array, g: _Array, w: _Array) -> tuple[_Array, _Array]:
        given, along = map(self._torch.from_numpy, (g, w))
        # Whatever mode the caller is in; and no backward(), which would add to the gradients of parameters.
        with self._torch.inference_mode(False), self._torch.enable_grad():
            states, controls = (self._torch.from_numpy(one).clone().requires_grad_(True) for one in (x, a))
            drift, cost = self._both(t, states, controls)
            of_states, of_controls = self._gradients((given * drift).sum() + (along * cost).sum(), states, controls)
        return of_states, of_controls

    def terminal(self, x: _Array) -> _Array:
        if self._terminal is None:
            return np.zeros(len(x))
        with self._torch.no_grad():
            return np.asarray(self._terminal(self._torch.from_numpy(x)).numpy())

    def terminal_gradient(self, x: _Array) -> _Array:
        if self._terminal is None:
            return np.zeros_like(x)
        with self._torch.inference_mode(False), self._torch.enable_grad():
            states = self._torch.from_numpy(x).clone().requires_grad_(True)
            (gradient,) = self._gradients(self._terminal(states).sum(), states)
        return gradient

    def _gradients(self, total: Any, *points: Any) -> list[_Array]:
        """Gradients of a number, 0 in points that it does not depend on."""
        each = [None] * len(points)
        if total.requires_grad:
            each = self._torch.autograd.grad(total, points, allow_unused=True)
        return [np.zeros(tuple(at.shape)) if one is None else one.numpy() for one, at in zip(each, points, strict=True)]

    def _both(self, t: float, states: Any, controls: Any) -> tuple[Any, Any]:
        cost = states.new_zeros(len(states)) if self._running is None else self._running(t, states, controls)
        return self._dynamics(t, states, controls), cost
