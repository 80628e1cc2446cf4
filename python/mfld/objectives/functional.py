"""Objectives from functions of all particles: in NumPy, JAX or torch."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from mfld import references, validation
from mfld import space as spaces
from mfld.noise import Place
from mfld.objectives.base import Measure, Objective, Potential
from mfld.references import Reference
from mfld.space import Space
from mfld.validation import FloatArray


class Functional(Objective):
    """Objective ``F(mu) = U(mu) + l2 E_mu |theta|**2`` from NumPy functions of all particles.

    The functions take the particles ``X`` of an empirical measure ``mu_X``, shape (N, p), in the precision of the run.
    They are called once a step. The gradient is that of the first variation, which differs from the gradient of the
    function ``X -> U(mu_X)`` by a factor N::

        gradient(X)[m] = grad_theta dU/dmu(mu_X)(theta_m) = N * d U(mu_X) / d theta_m

    `from_jax` and `from_torch` take ``U(mu_X)`` itself, a scalar function, and see to derivative and factor.

    Parameters
    ----------
    gradient : callable
        ``gradient(X)``: shape (N, p). With ``n_samples`` it is called as ``gradient(X, batch)``, where ``batch`` is an
        integer array of rows, or None for all of them; over all batches of one size it has to be unbiased.
    value : callable, optional
        ``value(X)``: the number ``U(mu_X)``. Without it whatever needs a value raises TypeError, and the loss in a
        history is NaN.
    n_coordinates : int, optional
        Length p of a particle.
    n_moving : int, optional
        Leading coordinates that move; by default all.
    l2 : float
        Coefficient of the ridge on moving coordinates (no factor 1/2), which the functions leave out.
    space, reference
        In place of the numbers of coordinates and of l2, as in `Potential`.
    n_samples : int, optional
        Number of rows, where U is a mean over samples: mini-batches and variance reduction need it.
    initial_particles : callable, optional
        Makes particles to start from out of standard normals, shape (N, p), and returns that shape. Default: the
        normals themselves.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; later, if a function returns another shape or what is no
        array of reals. `first_variation` always raises TypeError: the functions do not tell it away from the particles.

    Examples
    --------
    Particles that repel each other, ``U(mu) = -E |theta - theta'|**2 / 4``, within a ridge:

    >>> import numpy as np
    >>> import mfld
    >>> spread = mfld.Functional(
    ...     lambda x: x.mean(axis=0) - x,
    ...     lambda x: -x.var(axis=0).sum() / 2,
    ...     n_coordinates=2,
    ...     l2=1.0,
    ... )
    >>> solver = mfld.MFLD(n_particles=2000, step_size=0.01, temperature=1.0)
    >>> result = solver.run(spread, n_steps=500)
    >>> round(float(result.particles.var()), 1)      # temperature / (2 l2 - 1)
    1.0
    """

    def __init__(
        self,
        gradient: Callable[..., ArrayLike],
        value: Callable[[FloatArray], Any] | None = None,
        *,
        n_coordinates: int | None = None,
        n_moving: int | None = None,
        l2: float = 0.0,
        space: Space | None = None,
        reference: Reference | None = None,
        n_samples: int | None = None,
        initial_particles: Callable[[FloatArray], ArrayLike] | None = None,
    ) -> None:
        validation.function("gradient", gradient)
        for name, function in (("value", value), ("initial_particles", initial_particles)):
            if function is not None:
                validation.function(name, function)
        self.space = spaces.given(n_coordinates, n_moving, space)
        self.reference = references.given(l2, reference, self.space)
        self.n_samples = None if n_samples is None else validation.integer("n_samples", n_samples, 1)
        self.has_value = value is not None
        self._gradient = gradient
        self._value = value
        self._initial_particles = initial_particles

    @classmethod
    def from_jax(cls, function: Callable[..., Any], *, n_samples: int | None = None, **arguments: Any) -> Functional:
        """Objective from a scalar function in JAX.

        Parameters
        ----------
        function : callable
            ``function(X)``: the scalar ``U(mu_X)`` of a JAX array of shape (N, p). With ``n_samples`` it is called as
            ``function(X, batch)``, an estimate of ``U(mu_X)`` from the rows ``batch``, an integer array, which is
            unbiased over all batches of one size, and exact with all rows; a mean over the rows is both.
            It is compiled once for each shape and precision. With particles in float64 it is traced with 64-bit types
            enabled, whatever the setting of JAX: keep data in NumPy and say ``jnp.asarray(data)[batch]`` within.
        n_samples, **arguments
            As in `Functional`.

        Raises
        ------
        ImportError
            If JAX is not installed.

        Examples
        --------
        >>> import mfld
        >>> try:
        ...     import jax
        ... except ImportError:
        ...     pass
        ... else:
        ...     variance = mfld.Functional.from_jax(lambda x: x.var(axis=0).sum(), n_coordinates=1)
        ...     assert variance.gradient([[1.0], [3.0]]).tolist() == [[-2.0], [2.0]]
        """
        validation.function("function", function)
        return cls._from_scalar(_Jax(function), n_samples, arguments)

    @classmethod
    def from_torch(cls, function: Callable[..., Any], *, n_samples: int | None = None, **arguments: Any) -> Functional:
        """Objective from a scalar function in torch.

        Parameters
        ----------
        function : callable
            As in `from_jax`, of a torch tensor on the CPU in the precision of the run; the rows are an int64 tensor. No
            gradient is left in parameters that it uses.
        n_samples, **arguments
            As in `Functional`.

        Raises
        ------
        ImportError
            If torch is not installed.

        Examples
        --------
        >>> import mfld
        >>> try:
        ...     import torch
        ... except ImportError:
        ...     pass
        ... else:
        ...     mean = mfld.Functional.from_torch(lambda x: x.mean() ** 2, n_coordinates=1)
        ...     assert mean.gradient([[1.0], [3.0]]).tolist() == [[4.0], [4.0]]
        """
        validation.function("function", function)
        return cls._from_scalar(_Torch(function), n_samples, arguments)

    @classmethod
    def _from_scalar(cls, scalar: _Scalar, n_samples: int | None, arguments: dict[str, Any]) -> Functional:
        for name in ("gradient", "value"):
            if name in arguments:
                raise TypeError(f"{name} must be left out: it is made from function")
        if n_samples is not None:
            n_samples = validation.integer("n_samples", n_samples, 1)
        every = None if n_samples is None else np.arange(n_samples)

        def gradient(particles: FloatArray, batch: ArrayLike | None = None) -> FloatArray:
            # A particle has the mass 1/N of the measure, hence the factor.
            return len(particles) * scalar.gradient(particles, every if batch is None else np.asarray(batch))

        return cls(gradient, lambda x: scalar.value(x, every), n_samples=n_samples, **arguments)

    def loss(self, measure: Measure) -> float:
        if self._value is None:
            raise TypeError("this Functional has a gradient only: give it value=, the function U of all particles")
        particles = self._particles(measure)
        return float(validation.returned("the result of value", self._value(particles.copy()), (), np.float64, ""))

    def loss_gradient(self, measure: Measure, batch: ArrayLike | None = None) -> FloatArray:
        particles = self._particles(measure)
        if self.n_samples is None:
            if batch is not None:
                raise ValueError("batch must be None for a Functional without n_samples")
            result = self._gradient(particles.copy())
        else:
            rows = None if batch is None else validation.rows("batch", batch, self.n_samples)
            result = self._gradient(particles.copy(), rows)
        why = "to match the particles"
        gradient = validation.returned("the result of gradient", result, particles.shape, particles.dtype, why)
        if self.n_moving < self.n_coordinates:
            gradient = gradient.copy()
            gradient[:, self.n_moving :] = 0
        return gradient

    def first_variation(self, measure: Measure, batch: ArrayLike | None = None) -> Potential:
        raise TypeError(
            "first_variation is not defined for a Functional, whose gradient is known at its own particles only; what "
            "needs it at other points (certificates, dual averaging, frozen potentials) takes an EmpiricalRisk, a "
            "Potential, or a subclass of Objective that defines it"
        )

    def initial_particles(self, n_particles: int, place: Place | int = 0, dtype: DTypeLike = "float32") -> FloatArray:
        normals = super().initial_particles(n_particles, place, dtype)
        if self._initial_particles is None:
            return normals
        result = self._initial_particles(normals.copy())
        why = "to match its argument"
        return validation.returned("the result of initial_particles", result, normals.shape, normals.dtype, why)

    def _particles(self, measure: Measure) -> FloatArray:
        cloud = self.cloud(measure)
        if cloud.weights is not None:
            raise ValueError("measure must have particles of equal weight (weights=None) for a Functional")
        return cloud.particles


def library(name: str, user: str) -> Any:
    """JAX or torch, for who asks."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ImportError(f"{user} needs {name}: pip install {name}") from None


def precision(jax: Any, dtype: DTypeLike) -> AbstractContextManager[Any]:
    """Context in which JAX computes in this precision."""
    # What JAX has compiled is kept apart by this setting, which is the thread's own and is restored.
    home = jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")
    context: AbstractContextManager[Any] = home.enable_x64(dtype == np.float64)
    return context


class _Scalar(ABC):
    """A scalar function of particles, and of rows where there are any, with its gradient in the particles."""

    @abstractmethod
    def value(self, particles: FloatArray, rows: Any) -> float: ...

    @abstractmethod
    def gradient(self, particles: FloatArray, rows: Any) -> FloatArray: ...


def _needs_scalar(shape: tuple[int, ...]) -> None:
    if shape != ():
        raise ValueError(f"function must return a scalar, got shape {tuple(shape)}")


class _Jax(_Scalar):
    def __init__(self, function: Callable[..., Any]) -> None:
        jax = library("jax", "Functional.from_jax")

        def scalar(*arguments: Any) -> Any:
            result = jax.numpy.asarray(function(*arguments))
            _needs_scalar(result.shape)
            return result

        self._jax = jax
        self._value = jax.jit(scalar)
        self._gradient = jax.jit(jax.grad(scalar))

    def value(self, particles: FloatArray, rows: Any) -> float:
        with precision(self._jax, particles.dtype):
            return float(self._value(*_given(particles, rows)))

    def gradient(self, particles: FloatArray, rows: Any) -> FloatArray:
        with precision(self._jax, particles.dtype):
            return np.asarray(self._gradient(*_given(particles, rows)))


class _Torch(_Scalar):
    def __init__(self, function: Callable[..., Any]) -> None:
        self._torch = library("torch", "Functional.from_torch")
        self._function = function

    def value(self, particles: FloatArray, rows: Any) -> float:
        with self._torch.no_grad():
            return float(self._evaluate(*map(self._torch.from_numpy, _given(particles, rows))))

    def gradient(self, particles: FloatArray, rows: Any) -> FloatArray:
        first, *others = map(self._torch.from_numpy, _given(particles, rows))
        # Whatever mode the caller is in; and no backward(), which would add to the gradients of parameters.
        with self._torch.inference_mode(False), self._torch.enable_grad():
            first = first.clone().requires_grad_(True)
            result = self._evaluate(first, *others)
            if not result.requires_grad:
                raise ValueError("function must depend on the particles through operations of torch")
            (gradient,) = self._torch.autograd.grad(result, first)
        return np.asarray(gradient.numpy())

    def _evaluate(self, *arguments: Any) -> Any:
        result = self._torch.as_tensor(self._function(*arguments))
        _needs_scalar(tuple(result.shape))
        return result


def _given(particles: FloatArray, rows: Any) -> tuple[Any, ...]:
    return (particles,) if rows is None else (particles, rows)
