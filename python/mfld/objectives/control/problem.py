"""Relaxed optimal control as an objective."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import references, validation
from mfld import space as spaces
from mfld.objectives.base import Measure, Objective, Potential, SetOnce
from mfld.objectives.control.checks import check_derivatives
from mfld.objectives.control.functions import Array, Functions, InJax, InNumPy, InTorch, Later, result
from mfld.objectives.control.paths import Paths
from mfld.objectives.control.timeline import Back, Hamiltonians, Pulled, Timeline, Way
from mfld.references import Reference
from mfld.schemes import SCHEMES
from mfld.space import Space
from mfld.state import Cloud
from mfld.validation import FloatArray


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

    times: Array
    states: Array
    adjoints: Array
    costs: Array


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
        For the state, of order 1, 2 and 4; the running cost is integrated along. With ``state_noise``, which is added
        after each step, expected costs have the order 1 with all three: more ``steps_per_node`` help.
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
        functions = InNumPy(
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
        check_derivatives(functions, self.initial_states, self.space, 0.4 * self.horizon, self._paths.seed)

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
        return cls._automatic(InJax(dynamics, running_cost, terminal_cost), horizon, n_nodes, initial_states, arguments)

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
        functions = InTorch(dynamics, running_cost, terminal_cost)
        return cls._automatic(functions, horizon, n_nodes, initial_states, arguments)

    @classmethod
    def _automatic(
        cls, functions: Functions, horizon: float, n_nodes: int, initial_states: ArrayLike, arguments: dict[str, Any]
    ) -> ControlProblem:
        for name in ("dynamics_jacobians", "running_gradients", "terminal_gradient"):
            if name in arguments:
                raise TypeError(f"{name} must be left out: it is made from the functions")
        problem = cls.__new__(cls)
        problem._begin(functions, horizon, n_nodes, initial_states, **arguments)
        return problem

    def _begin(
        self,
        functions: Functions,
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
        horizon = validation.real("horizon", horizon, positive=True)
        n_nodes = validation.integer("n_nodes", n_nodes, 1)
        self.scheme = validation.choice("scheme", scheme, SCHEMES)
        self.steps_per_node = validation.integer("steps_per_node", steps_per_node, 1)
        self.shared = validation.boolean("shared", shared)
        self._timeline = Timeline(functions, SCHEMES[self.scheme], horizon, n_nodes, self.steps_per_node, self.shared)
        if n_controls is None and space is None:
            raise ValueError("n_controls must be given, or space; got neither")
        if n_controls is not None:
            n_controls = validation.integer("n_controls", n_controls, 1)
            if space is not None:
                raise ValueError(f"n_controls must be left out where space is given, got {n_controls} and {space}")
        self.space = spaces.given(n_controls, None, space)
        self.reference = references.given(l2, reference, self.space)
        self.members = () if self.shared else (n_nodes,)
        n_steps = n_nodes * self.steps_per_node
        self._paths = Paths.checked(initial_states, sample_weight, state_noise, n_paths, n_steps, seed)
        first, still = self.initial_states[:1], np.zeros((1, self.n_coordinates))
        with np.errstate(all="ignore"):  # it is about shapes
            functions.rates(0.0, first.copy(), still)
            result("terminal_cost", functions.terminal(first.copy()), (1,))

    def __repr__(self) -> str:
        s, d = self.initial_states.shape
        paths = s * self._paths.n_paths
        return (
            f"ControlProblem({'one measure for ' if self.shared else ''}{self.n_nodes} nodes to {self.horizon:g}, "
            f"{paths} path{'s' if paths > 1 else ''} of {d} coordinate{'s' if d > 1 else ''}, "
            f"controls of {self.n_coordinates}, {self.scheme}, l2={self.l2:g})"
        )

    @property
    def horizon(self) -> float:
        """T, the end of time."""
        return self._timeline.horizon

    @property
    def n_nodes(self) -> int:
        """Number of parts with a measure each."""
        return self._timeline.n_nodes

    @property
    def initial_states(self) -> Array:
        """States that paths begin from, shape (S, d), read-only."""
        return self._paths.initial_states

    @property
    def n_samples(self) -> int:  # type: ignore[override]
        """Number of initial states."""
        return len(self.initial_states)

    @property
    def node_times(self) -> Array:
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
        slopes = self._back(cloud, batch).slopes / self._part
        with np.errstate(over="ignore"):  # what overflows is found by the move
            return slopes.astype(cloud.particles.dtype)

    def first_variation(self, measure: Measure, batch: ArrayLike | None = None) -> Potential:
        """Hamiltonians of all nodes as a potential, ridge included, at points of shape (n_nodes, M, p).

        Of a shared measure it is their mean over time, at points of shape (M, p).
        """
        return self._potential(self._back(self.cloud(measure), batch).pulled, self.members)

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
        pulled = self._back(self.cloud(measure), None).pulled
        return self._potential([one for one in pulled if self.shared or one.stage.node == node], ())

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
        way = self._way(cloud, None)
        back = self._timeline.backward(cloud, way, np.ones(len(way.costs)))
        return Trajectory(np.linspace(0, self.horizon, len(way.states)), way.states, back.adjoints, way.costs)

    def simulate(self, measure: Measure, initial_states: ArrayLike, until: float | None = None) -> Array:
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
        return self._timeline.forward(self.cloud(measure), states, None, nodes).states

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
        timeline, start = self._timeline, validation.real("start", start)
        if start != 0:
            timeline = replace(timeline, functions=Later(timeline.functions, start))
        other = copy.copy(self)
        vars(other).update(_timeline=timeline, _paths=self._paths.moved(initial_states))
        return other

    @property
    def _part(self) -> float:
        """Length of time that a measure stands for."""
        return self.horizon if self.shared else self.horizon / self.n_nodes

    def _cost(self, cloud: Cloud, batch: ArrayLike | None) -> float:
        rows = self._rows(batch)
        return float(np.sum(self._paths.weights(rows) * self._way(cloud, rows).costs))

    def _way(self, cloud: Cloud, rows: NDArray[np.int64] | None) -> Way:
        """The way of the paths from all initial states, or from these rows; their costs with the terminal one."""
        timeline, paths = self._timeline, self._paths
        way = timeline.forward(cloud, paths.begin(rows), paths.kicks(rows), self.n_nodes)
        terminal = result("terminal_cost", timeline.functions.terminal(way.states[-1].copy()), way.costs.shape)
        return way._replace(costs=way.costs + terminal)

    def _back(self, cloud: Cloud, batch: ArrayLike | None) -> Back:
        rows = self._rows(batch)
        return self._timeline.backward(cloud, self._way(cloud, rows), self._paths.weights(rows))

    def _rows(self, batch: ArrayLike | None) -> NDArray[np.int64] | None:
        return None if batch is None else validation.rows("batch", batch, self.n_samples)

    def _potential(self, pulled: Sequence[Pulled], members: tuple[int, ...]) -> Potential:
        hamiltonians = Hamiltonians(self._timeline.functions, pulled, self._part)
        potential = Potential(
            lambda points: hamiltonians.value_and_gradient(points, value=False)[1],
            lambda points: hamiltonians.value_and_gradient(points, gradient=False)[0],
            value_and_gradient=hamiltonians.value_and_gradient,
            space=self.space,
            reference=self.reference,
        )
        potential.members = members
        return potential
