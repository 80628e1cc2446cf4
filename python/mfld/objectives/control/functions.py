"""Functions of a control problem with their derivatives: the user's own, or those that JAX or torch makes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from mfld import validation
from mfld.autodiff import library, precision
from mfld.validation import FloatArray

Array: TypeAlias = FloatArray  # in float64


class Functions(ABC):
    """Drift, costs and their derivatives, for pairs of a state (M, d) and a control (M, p)."""

    @abstractmethod
    def evaluate(self, t: float, x: Array, a: Array) -> tuple[Array, Array]:
        """Drift (M, d) and running cost (M,)."""

    def rates(self, t: float, x: Array, a: Array) -> tuple[Array, Array]:
        """The same, of the right shapes and in float64."""
        drift, cost = self.evaluate(t, x, a)
        return result("dynamics", drift, x.shape), result("running_cost", cost, (len(x),))

    @abstractmethod
    def pull_back(self, t: float, x: Array, a: Array, g: Array, w: Array) -> tuple[Array, Array]:
        """Gradients of ``g . drift + w cost`` of each pair, in x and in a."""

    @abstractmethod
    def terminal(self, x: Array) -> Array:
        """Terminal cost (M,)."""

    @abstractmethod
    def terminal_gradient(self, x: Array) -> Array:
        """Its gradient (M, d)."""


def result(name: str, value: object, shape: tuple[int, ...]) -> Array:
    """Array that a function of the user returned, in float64; refused unless it has the shape."""
    return validation.returned(f"the result of {name}", value, shape, np.float64, "to match its arguments")


def _two(name: str, value: object) -> tuple[Any, Any]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name} must return two arrays, in x and in a, got {validation.show(value)}")
    return value[0], value[1]


def _lock(*arguments: Array) -> None:
    for each in arguments:
        each.flags.writeable = False


class InNumPy(Functions):
    """Functions and derivatives of the user, whose arguments are read-only: one that writes to them is told so."""

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

    def evaluate(self, t: float, x: Array, a: Array) -> tuple[Array, Array]:
        _lock(x, a)
        cost = np.zeros(len(x)) if self._running is None else self._running(t, x, a)
        return self._dynamics(t, x, a), cost

    def pull_back(self, t: float, x: Array, a: Array, g: Array, w: Array) -> tuple[Array, Array]:
        m, d, p = len(x), x.shape[1], a.shape[1]
        _lock(x, a)
        of_states, of_controls = _two("dynamics_jacobians", self._jacobians(t, x, a))
        of_states = result("dynamics_jacobians, in x,", of_states, (m, d, d))
        of_controls = result("dynamics_jacobians, in a,", of_controls, (m, d, p))
        in_states, in_controls = np.einsum("mk,mkj->mj", g, of_states), np.einsum("mk,mkj->mj", g, of_controls)
        if self._running_gradients is None or not w.any():
            return in_states, in_controls
        cost_states, cost_controls = _two("running_gradients", self._running_gradients(t, x, a))
        cost_states = result("running_gradients, in x,", cost_states, (m, d))
        cost_controls = result("running_gradients, in a,", cost_controls, (m, p))
        return in_states + w[:, np.newaxis] * cost_states, in_controls + w[:, np.newaxis] * cost_controls

    def terminal(self, x: Array) -> Array:
        _lock(x)
        return np.zeros(len(x)) if self._terminal is None else np.asarray(self._terminal(x))

    def terminal_gradient(self, x: Array) -> Array:
        _lock(x)
        return np.zeros_like(x) if self._terminal_gradient is None else np.asarray(self._terminal_gradient(x))


class Later(Functions):
    """Functions that are told a later time."""

    def __init__(self, functions: Functions, start: float) -> None:
        self._functions, self._start = functions, start

    def evaluate(self, t: float, x: Array, a: Array) -> tuple[Array, Array]:
        return self._functions.evaluate(self._start + t, x, a)

    def pull_back(self, t: float, x: Array, a: Array, g: Array, w: Array) -> tuple[Array, Array]:
        return self._functions.pull_back(self._start + t, x, a, g, w)

    def terminal(self, x: Array) -> Array:
        return self._functions.terminal(x)

    def terminal_gradient(self, x: Array) -> Array:
        return self._functions.terminal_gradient(x)


def _check_functions(dynamics: object, running_cost: object, terminal_cost: object) -> None:
    validation.function("dynamics", dynamics)
    for name, function in (("running_cost", running_cost), ("terminal_cost", terminal_cost)):
        if function is not None:
            validation.function(name, function)


class InJax(Functions):
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

    def evaluate(self, t: float, x: Array, a: Array) -> tuple[Array, Array]:
        with precision(self._jax, x.dtype):
            drift, cost = self._both(t, x, a)
            return np.asarray(drift), np.asarray(cost)

    def pull_back(self, t: float, x: Array, a: Array, g: Array, w: Array) -> tuple[Array, Array]:
        with precision(self._jax, x.dtype):
            of_states, of_controls = self._pulled(t, x, a, g, w)
            return np.asarray(of_states), np.asarray(of_controls)

    def terminal(self, x: Array) -> Array:
        with precision(self._jax, x.dtype):
            return np.asarray(self._terminal(x))

    def terminal_gradient(self, x: Array) -> Array:
        with precision(self._jax, x.dtype):
            return np.asarray(self._slope(x))


class InTorch(Functions):
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

    def evaluate(self, t: float, x: Array, a: Array) -> tuple[Array, Array]:
        with self._torch.no_grad():
            drift, cost = self._both(t, *map(self._torch.from_numpy, (x, a)))
            return drift.numpy(), cost.numpy()

    def pull_back(self, t: float, x: Array, a: Array, g: Array, w: Array) -> tuple[Array, Array]:
        given, along = map(self._torch.from_numpy, (g, w))
        # Whatever mode the caller is in; and no backward(), which would add to the gradients of parameters.
        with self._torch.inference_mode(False), self._torch.enable_grad():
            states, controls = (self._torch.from_numpy(one).clone().requires_grad_(True) for one in (x, a))
            drift, cost = self._both(t, states, controls)
            of_states, of_controls = self._gradients((given * drift).sum() + (along * cost).sum(), states, controls)
        return of_states, of_controls

    def terminal(self, x: Array) -> Array:
        if self._terminal is None:
            return np.zeros(len(x))
        with self._torch.no_grad():
            return np.asarray(self._terminal(self._torch.from_numpy(x)).numpy())

    def terminal_gradient(self, x: Array) -> Array:
        if self._terminal is None:
            return np.zeros_like(x)
        with self._torch.inference_mode(False), self._torch.enable_grad():
            states = self._torch.from_numpy(x).clone().requires_grad_(True)
            (gradient,) = self._gradients(self._terminal(states).sum(), states)
        return gradient

    def _gradients(self, total: Any, *points: Any) -> list[Array]:
        """Gradients of a number, 0 in points that it does not depend on."""
        each = [None] * len(points)
        if total.requires_grad:
            each = self._torch.autograd.grad(total, points, allow_unused=True)
        return [np.zeros(tuple(at.shape)) if one is None else one.numpy() for one, at in zip(each, points, strict=True)]

    def _both(self, t: float, states: Any, controls: Any) -> tuple[Any, Any]:
        cost = states.new_zeros(len(states)) if self._running is None else self._running(t, states, controls)
        return self._dynamics(t, states, controls), cost
