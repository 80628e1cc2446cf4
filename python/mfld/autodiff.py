"""Functions in JAX or torch, with their gradients, called with NumPy arrays."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mfld.validation import FloatArray

Check = Callable[[tuple[int, ...]], None]


class Differentiable(ABC):
    """Function of arrays, and the gradient in the first of them of the sum of what it returns."""

    @abstractmethod
    def value(self, first: FloatArray, *others: Any) -> NDArray[Any]: ...

    @abstractmethod
    def gradient(self, first: FloatArray, *others: Any) -> FloatArray: ...

    @abstractmethod
    def value_and_gradient(self, first: FloatArray, *others: Any) -> tuple[NDArray[Any], FloatArray]: ...

    @abstractmethod
    def along(self, first: FloatArray, vectors: FloatArray) -> FloatArray:
        """Derivative of the gradient along vectors, of a function of one array: products of Hessians with them."""


def scalar(shape: tuple[int, ...]) -> None:
    """Raise ValueError if a shape is not that of a number."""
    if shape != ():
        raise ValueError(f"function must return a scalar, got shape {tuple(shape)}")


def of_points(shape: tuple[int, ...]) -> None:
    """Raise ValueError if a shape is not that of a number for each point."""
    if len(shape) != 1:
        raise ValueError(f"function must return shape (M,), got shape {tuple(shape)}")


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


class Jax(Differentiable):
    """Function in JAX, compiled once for each shape and precision; those of 64 bits are traced with 64-bit types."""

    def __init__(self, function: Callable[..., Any], check: Check, caller: str) -> None:
        jax = library("jax", f"{caller}.from_jax")

        def checked(*arguments: Any) -> Any:
            result = jax.numpy.asarray(function(*arguments))
            check(result.shape)
            return result

        def summed(*arguments: Any) -> tuple[Any, Any]:
            result = checked(*arguments)
            return result.sum(), result

        self._jax = jax
        self._value = jax.jit(checked)
        self._gradient = jax.jit(jax.grad(lambda *arguments: summed(*arguments)[0]))
        self._both = jax.jit(jax.value_and_grad(summed, has_aux=True))
        self._along = jax.jit(lambda x, v: jax.jvp(jax.grad(lambda y: summed(y)[0]), (x,), (v,))[1])

    def value(self, first: FloatArray, *others: Any) -> NDArray[Any]:
        with precision(self._jax, first.dtype):
            return np.asarray(self._value(first, *others))

    def gradient(self, first: FloatArray, *others: Any) -> FloatArray:
        with precision(self._jax, first.dtype):
            return np.asarray(self._gradient(first, *others))

    def value_and_gradient(self, first: FloatArray, *others: Any) -> tuple[NDArray[Any], FloatArray]:
        with precision(self._jax, first.dtype):
            (_, value), gradient = self._both(first, *others)
            return np.asarray(value), np.asarray(gradient)

    def along(self, first: FloatArray, vectors: FloatArray) -> FloatArray:
        with precision(self._jax, first.dtype):
            return np.asarray(self._along(first, vectors))


class Torch(Differentiable):
    """Function of torch tensors on the CPU; no gradient is left in parameters that it uses."""

    def __init__(self, function: Callable[..., Any], check: Check, caller: str) -> None:
        self._torch = library("torch", f"{caller}.from_torch")
        self._function = function
        self._check = check

    def value(self, first: FloatArray, *others: Any) -> NDArray[Any]:
        with self._torch.no_grad():
            return np.asarray(self._evaluate(*map(self._tensor, (first, *others))).numpy())

    def gradient(self, first: FloatArray, *others: Any) -> FloatArray:
        return self.value_and_gradient(first, *others)[1]

    def value_and_gradient(self, first: FloatArray, *others: Any) -> tuple[NDArray[Any], FloatArray]:
        # Whatever mode the caller is in; and no backward(), which would add to the gradients of parameters.
        with self._torch.inference_mode(False), self._torch.enable_grad():
            _, result, gradient = self._derived(first, *others)
        return np.asarray(result.detach().numpy()), np.asarray(gradient.detach().numpy())

    def along(self, first: FloatArray, vectors: FloatArray) -> FloatArray:
        with self._torch.inference_mode(False), self._torch.enable_grad():
            moving, _, gradient = self._derived(first, twice=True)
            slope = (gradient * self._tensor(vectors)).sum()
            # The gradient of a function that is linear depends on nothing.
            (found,) = self._torch.autograd.grad(slope, moving, allow_unused=True) if slope.requires_grad else (None,)
        return np.zeros_like(first) if found is None else np.asarray(found.numpy())

    def _derived(self, first: FloatArray, *others: Any, twice: bool = False) -> tuple[Any, Any, Any]:
        """The first array as a tensor, the result, and the gradient, of which one may take another one."""
        moving, *fixed = map(self._tensor, (first, *others))
        moving = moving.clone().requires_grad_(True)
        result = self._evaluate(moving, *fixed)
        if not result.requires_grad:
            raise ValueError("function must depend on the particles through operations of torch")
        (gradient,) = self._torch.autograd.grad(result.sum(), moving, create_graph=twice)
        return moving, result, gradient

    def _tensor(self, array: NDArray[Any]) -> Any:
        # A tensor of what may not be written to is a warning; torch wants an array of its own.
        return self._torch.from_numpy(array if array.flags.writeable else array.copy())

    def _evaluate(self, *arguments: Any) -> Any:
        result = self._torch.as_tensor(self._function(*arguments))
        self._check(tuple(result.shape))
        return result
