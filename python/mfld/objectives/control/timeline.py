"""Nodes of time: states along them under a measure of controls, and the way back, which is its exact transpose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mfld.errors import BlowUpError
from mfld.objectives.control.functions import Array, Functions, result
from mfld.schemes import Scheme
from mfld.state import Cloud
from mfld.validation import FloatArray

_PAIRS_AT_A_TIME = 2**17  # of a state and a control, for which the functions of a user are asked at once


class Stage(NamedTuple):
    """Place where the functions are asked: node, time, states (S, d), and the weight of the running cost."""

    node: int
    time: float
    states: Array
    weight: float


class Pulled(NamedTuple):
    """A stage with the cotangents of its drift (S, d) and of its running cost (S,)."""

    stage: Stage
    of_drift: Array
    of_cost: Array


class Way(NamedTuple):
    """Stages, states (steps + 1, S, d) and costs (S,) of paths, the terminal cost excluded."""

    stages: list[Stage]
    states: Array
    costs: Array


class Back(NamedTuple):
    """Stages with their cotangents, adjoints (steps + 1, S, d), and gradients in the controls of each node.

    The gradients have the shape of the particles, and are those of the sum of weighted costs times N.
    """

    pulled: list[Pulled]
    adjoints: Array
    slopes: Array


@dataclass(frozen=True, eq=False)
class Timeline:
    """Equal parts of a horizon with a measure each, or one for all, in steps of a scheme."""

    functions: Functions
    scheme: Scheme
    horizon: float
    n_nodes: int
    steps_per_node: int
    shared: bool

    @property
    def step(self) -> float:
        """Length of a step."""
        return self.horizon / (self.n_nodes * self.steps_per_node)

    def forward(self, cloud: Cloud, states: Array, kicks: Array | None, n_nodes: int) -> Way:
        """The way of states (S, d) along the first nodes; kicks (steps, S, d) are added times the root of a step."""
        stages: list[Stage] = []
        along: list[FloatArray] = [states]
        costs = np.zeros(len(states))
        for k in range(n_nodes * self.steps_per_node):
            with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found below
                after, cost = self._step(cloud, k, along[-1], stages)
                costs = costs + cost
                if kicks is not None:
                    after = after + np.sqrt(self.step) * kicks[k]
            _check_finite(after, costs, along[-1], k // self.steps_per_node, k * self.step)
            along.append(after)
        return Way(stages, np.stack(along), costs)

    def backward(self, cloud: Cloud, way: Way, weights: Array) -> Back:
        """From the sum of the weighted costs back to all stages; the terminal cost included."""
        last, size = way.states[-1], len(self.scheme.b)
        gradient = result("terminal_gradient", self.functions.terminal_gradient(last.copy()), last.shape)
        adjoints: list[FloatArray] = [weights[:, np.newaxis] * gradient]
        found: list[Pulled] = []
        slopes = np.zeros(cloud.particles.shape)
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found by the move
            for first in range(len(way.stages) - size, -1, -size):
                stages = way.stages[first : first + size]
                adjoints.append(self._step_back(cloud, stages, adjoints[-1], weights, found, slopes))
        return Back(found[::-1], np.stack(adjoints[::-1]), slopes)

    def _step(self, cloud: Cloud, k: int, states: Array, stages: list[Stage]) -> tuple[Array, Array]:
        """States after step k and what it costs; its stages are appended."""
        node, h, scheme = k // self.steps_per_node, self.step, self.scheme
        controls, masses = self._controls(cloud, node)
        total = np.zeros(len(states))

        def rate(i: int, x: Array) -> Array:
            stages.append(Stage(node, (k + scheme.c[i]) * h, x, h * scheme.b[i]))
            drift, cost = self._mean(stages[-1], controls, masses)
            np.add(total, stages[-1].weight * cost, out=total)
            return drift

        return scheme.step(states, h, rate), total

    def _step_back(
        self, cloud: Cloud, stages: list[Stage], adjoint: Array, weights: Array, found: list[Pulled], slopes: Array
    ) -> Array:
        """Adjoint before a step of these stages; they are appended with their cotangents, the last one first."""
        controls, masses = self._controls(cloud, stages[0].node)
        own = slopes if self.shared else slopes[stages[0].node]

        def pull(i: int, g: Array) -> Array:
            found.append(Pulled(stages[i], g, stages[i].weight * weights))
            in_states, in_controls = self._pulled_back(found[-1], controls, masses)
            np.add(own, in_controls, out=own)
            return in_states

        return self.scheme.pull_back(adjoint, self.step, pull)

    def _controls(self, cloud: Cloud, node: int) -> tuple[Array, Array]:
        """Controls (N, p) and weights (N,) of a node."""
        own = () if self.shared else (node,)
        controls = cloud.particles[own].astype(np.float64)
        n = len(controls)
        return controls, np.full(n, 1 / n) if cloud.weights is None else cloud.weights[own].astype(np.float64)

    def _mean(self, stage: Stage, controls: Array, weights: Array) -> tuple[Array, Array]:
        """Drift (S, d) and running cost (S,), averaged over controls."""
        drift, cost, n = np.empty_like(stage.states), np.empty(len(stage.states)), len(controls)
        for rows, x, a in pairs(stage.states, controls):
            each, costs = self.functions.rates(stage.time, x, a)
            drift[rows] = np.einsum("snd,n->sd", each.reshape(-1, n, x.shape[1]), weights)
            cost[rows] = np.einsum("sn,n->s", costs.reshape(-1, n), weights)
        return drift, cost

    def _pulled_back(self, pulled: Pulled, controls: Array, weights: Array) -> tuple[Array, Array]:
        """Gradients of what is pulled back: in the states of a stage (S, d), and in its controls (N, p) times N."""
        in_states, in_controls, n = np.empty_like(pulled.of_drift), np.zeros_like(controls), len(controls)
        for rows, x, a in pairs(pulled.stage.states, controls):
            g, w = np.repeat(pulled.of_drift[rows], n, axis=0), np.repeat(pulled.of_cost[rows], n)
            each, slopes = self.functions.pull_back(pulled.stage.time, x, a, g, w)
            in_states[rows] = np.einsum("snd,n->sd", each.reshape(-1, n, x.shape[1]), weights)
            in_controls += slopes.reshape(-1, n, slopes.shape[1]).sum(axis=0)
        return in_states, in_controls


def pairs(states: Array, controls: Array) -> Iterator[tuple[slice, Array, Array]]:
    """Blocks of states by their rows, each with all controls: pairs in rows, states in the outer order."""
    n, p = controls.shape
    at_a_time = max(1, _PAIRS_AT_A_TIME // n)
    for first in range(0, len(states), at_a_time):
        rows = slice(first, min(first + at_a_time, len(states)))
        some = states[rows]
        yield rows, np.repeat(some, n, axis=0), np.repeat(controls[np.newaxis], len(some), axis=0).reshape(-1, p)


def _check_finite(after: Array, costs: Array, before: Array, node: int, time: float) -> None:
    finite = np.isfinite(after).all(axis=1) & np.isfinite(costs)
    if not finite.all():
        path = int(np.argmin(finite))
        raise BlowUpError(node, path, time, before[path].tolist())


class Hamiltonians:
    """Hamiltonians of the nodes, per unit of time, from stages with their cotangents: a function of any controls."""

    def __init__(self, functions: Functions, pulled: Sequence[Pulled], part: float) -> None:
        self._functions, self._pulled, self._part = functions, pulled, part
        nodes = sorted({one.stage.node for one in pulled})
        self._nodes = {node: number for number, node in enumerate(nodes)}

    def value_and_gradient(self, points: Array, *, value: bool = True, gradient: bool = True) -> tuple[Array, Array]:
        """Values (..., M) and gradients (..., M, p) at points: (M, p), or (number of nodes, M, p)."""
        wide, n = points.astype(np.float64), points.shape[-2]
        values, slopes = np.zeros(wide.shape[:-1]), np.zeros(wide.shape)
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found by the move
            for stage, of_drift, of_cost in self._pulled:
                own = () if points.ndim == 2 else (self._nodes[stage.node],)
                for rows, x, a in pairs(stage.states, wide[own]):
                    g, w = np.repeat(of_drift[rows], n, axis=0), np.repeat(of_cost[rows], n)
                    if value:
                        drift, cost = self._functions.rates(stage.time, x, a)
                        each = np.einsum("md,md->m", g, drift) + w * cost
                        values[own] += each.reshape(-1, n).sum(axis=0) / self._part
                    if gradient:
                        slope = self._functions.pull_back(stage.time, x, a, g, w)[1]
                        slopes[own] += slope.reshape(-1, n, slope.shape[1]).sum(axis=0) / self._part
            return values.astype(points.dtype), slopes.astype(points.dtype)
