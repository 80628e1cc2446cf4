"""Objectives in general, and potentials: those that are linear, which every first variation is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mfld import autodiff, noise, references, validation
from mfld import space as spaces
from mfld.native import Problem
from mfld.noise import Place
from mfld.ranks import Ranks
from mfld.references import Free, Reference
from mfld.space import Space
from mfld.state import Cloud
from mfld.validation import FloatArray, FloatDType

Measure: TypeAlias = Cloud | ArrayLike
"""A cloud, or its particles, shape (N, p), where they weigh the same."""


class Bounds(NamedTuple):
    """Bounds on the first variation of U, without the ridge, that hold whatever the measure; the worst where unknown.

    Attributes
    ----------
    oscillation : float
        Its supremum less its infimum, over theta.
    lipschitz : float
        On the size of its gradient in theta.
    convexity : float
        Below all eigenvalues of its Hessian in theta.
    smoothness : float
        Above their absolute values.
    fluctuation : float
        b, where N independent draws of any mu have ``E U(mu_N) - U(mu) <= b / N``.
    """

    oscillation: float = math.inf
    lipschitz: float = math.inf
    convexity: float = -math.inf
    smoothness: float = math.inf
    fluctuation: float = math.inf


class Around(NamedTuple):
    """A functional U around some particles, as the automatic step size looks at it: `Objective.around`.

    Attributes
    ----------
    loss : callable
        Takes nothing, returns U.
    slope : ndarray, shape (N, p)
        `Objective.loss_gradient`.
    along : callable
        Takes a direction, shape (N, p), and returns how the slope changes along it, of all particles at once.
    """

    loss: Callable[[], float]
    slope: FloatArray
    along: Callable[[FloatArray], FloatArray]


class SetOnce:
    """Attributes that are set once, but for the number of threads: what is computed from them would not follow."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self) and name != "num_threads":
            kind = type(self).__name__
            raise AttributeError(f"{name} of {kind} is read-only, since it is used already: make another {kind}")
        super().__setattr__(name, value)


class Objective(ABC):
    """A functional of a probability measure, ``F(mu) = U(mu) + l2 * E_mu |theta|**2``.

    The algorithms minimise ``F(mu) + temperature * Ent(mu)``. A subclass defines U by `loss`, `loss_gradient` and
    `first_variation`; the ridge, which acts on the moving coordinates, is added here. It is then called once a step
    with all particles, and the noise, the scheme and the estimators are the same as for the objectives that the core
    knows.

    Attributes
    ----------
    space : Space
        Coordinates of a particle, those that move, and their domain.
    reference : Reference
        What regularises beside the entropy: `references.Gaussian(l2)` is the ridge.
    members : tuple of int
        Leading axes of a measure with several members, such as nodes of time: its particles have the shape
        (members, N, p). Each member is a measure of its own, and gradients are those of the first variation in it.
    n_samples : int or None
        Number of samples that `loss_gradient` can take a batch of; None where there are none, or no end of them.
    has_batches : bool
        True where `loss_gradient` and `first_variation` take a batch; by default where there is a number of samples.
    has_gradient : bool
        False where the gradient over all samples is an expectation that is not known: of a stream.
    linear : bool
        True where the first variation does not depend on the measure: particles then do not interact.
    has_particle_batches : bool
        True where `loss_gradient_by_particle` is defined.
    has_value : bool
        False where only gradients are known: `loss` and `value` then raise, and a history holds NaN for the loss.
    metric : str
        "product", or "conic" where particles move on the cone over their positions, by `mfld.dynamics.Conic`.
    shares_rows : bool
        True where processes can share the rows of its gradient, see `mfld.mpi.Sharded`.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> class TargetMean(mfld.Objective):
    ...     '''U(mu) = |E_mu theta - target|**2 / 2.'''
    ...     space = mfld.Space(2)
    ...     reference = mfld.references.Gaussian(0.1)
    ...     target = np.array([1.0, -1.0])
    ...     def residual(self, measure):
    ...         return np.average(self.cloud(measure).particles, axis=0) - self.target
    ...     def loss(self, measure):
    ...         return float(np.sum(self.residual(measure) ** 2) / 2)
    ...     def loss_gradient(self, measure, batch=None):
    ...         return np.tile(self.residual(measure), (len(self.cloud(measure).particles), 1))
    ...     def first_variation(self, measure, batch=None):
    ...         slope = self.residual(measure)
    ...         return mfld.Potential(lambda x: np.tile(slope, (len(x), 1)), n_coordinates=2, l2=self.l2)
    >>> solver = mfld.MFLD(n_particles=500, step_size=0.1, temperature=0.01)
    >>> result = solver.run(TargetMean(), n_steps=200)
    >>> np.round(result.particles.mean(axis=0), 1)     # the minimiser is target / (1 + 2 l2)
    array([ 0.8, -0.8], dtype=float32)
    """

    space: Space
    reference: Reference = Free()
    members: tuple[int, ...] = ()
    n_samples: int | None = None
    linear: bool = False
    has_particle_batches: bool = False
    has_value: bool = True
    metric: str = "product"
    has_gradient: bool = True
    any_precision: bool = False
    shares_rows: bool = False
    num_threads: int | None = None

    def __repr__(self) -> str:
        p = self.n_coordinates
        return f"{type(self).__name__}({p} coordinate{'s' if p > 1 else ''}, {self.reference!r})"

    @property
    def n_coordinates(self) -> int:
        """Coordinates p of a particle."""
        return self.space.n_coordinates

    @property
    def n_moving(self) -> int:
        """Leading coordinates that move; those behind them are frozen."""
        return self.space.n_moving

    @property
    def conditionals(self) -> tuple[tuple[float, Objective], ...]:
        """Weight and objective of each member, where the members do not meet: itself where there are no members.

        Defined for first variations of objectives with members, so that they can be certified member by member.
        """
        if self.members:
            raise NotImplementedError(f"{type(self).__name__} must define conditionals: it has members")
        return ((1.0, self),)

    @property
    def l2(self) -> float:
        """Coefficient of the ridge, without a factor 1/2."""
        return self.reference.l2

    def native(self, dtype: FloatDType) -> Problem | None:
        """This objective as the compiled core takes it; None where the core does not know it."""
        return None

    def native_in_bfloat16(self) -> Problem | None:
        """The same of float32 particles with products of bfloat16; None where the core has none for it."""
        return None

    def bounds(self) -> Bounds:
        """Bounds on the first variation, for `mfld.theory`: those that are known."""
        return Bounds(fluctuation=0.0) if self.linear else Bounds()

    def check(self) -> None:
        """Raise TypeError or ValueError if space, reference and members are not what algorithms take; before a run."""
        kind = type(self).__name__
        validation.instance(f"{kind}.space", getattr(self, "space", None), Space, "a Space, like Space(3)")
        validation.instance(f"{kind}.reference", self.reference, Reference, "a Reference, like Gaussian(0.1)")
        validation.instance(f"{kind}.members", self.members, tuple, "a tuple of integers")
        for number in self.members:
            validation.integer(f"{kind}.members", number, 1)
        self.reference.check(self.space)

    def on_threads(self, num_threads: int | None) -> Self:
        """The same objective, evaluated on so many threads; None: what OpenMP would take. It never changes a value."""
        return self

    def over_ranks(self, ranks: Ranks) -> Self:
        """The same objective, evaluated by several processes together, which all make the same calls: `mfld.mpi`.

        It never changes a value.

        Raises
        ------
        TypeError
            If it cannot be.
        """
        raise TypeError(
            "objective must be an EmpiricalRisk of a TwoLayerNetwork, an MMD from samples or a KSD for Sharded, got "
            f"{self!r}"
        )

    def steps_at_once(self, n_rows: int | None) -> int | None:
        """Most steps, of so many rows each, before `release` is called; None where it need not be."""
        return None

    def release(self) -> None:
        """Give back memory into which rows were read that stay on disk."""
        return

    @property
    def has_batches(self) -> bool:
        """True where `loss_gradient` takes a batch."""
        return self.n_samples is not None

    def draw_batch(self, place: Place, batch_size: int) -> Any:
        """Batch of a step as `loss_gradient` takes it: rows of the samples, or samples of a stream."""
        assert self.n_samples is not None  # by the check of the estimator
        return place.batch(self.n_samples, batch_size)

    def loss_of_batch(self, measure: Measure, batch: Any) -> float:
        """Estimate of the loss without bias from a batch; NaN where there is none."""
        return math.nan

    def sampled(self, step: int, n_rows: int) -> Objective:
        """The objective itself, or of a stream that of so many samples of a step."""
        return self

    def row_sizes(self) -> NDArray[np.float64] | None:
        """Size of each sample, by which the curvature of its loss grows; None where it is not known."""
        return None

    def of_rows(self, rows: NDArray[np.int64], factors: NDArray[np.float64] | None = None) -> tuple[Objective, float]:
        """The objective of some samples only, their weights times factors, and the sum of these, their share.

        Defined where `row_sizes` is.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define of_rows")

    def around(self, particles: FloatArray) -> Around | None:
        """U around particles, shape (N, p), with exact second derivatives, for `mfld.step_size`.

        None where there are none, or none at so many particles: differences of gradients then stand for them.
        """
        return None

    def predict(self, measure: Measure, inputs: ArrayLike) -> FloatArray:
        """Predictions at inputs, of objectives that are about predictions.

        Parameters
        ----------
        measure : Cloud or array_like, shape (N, n_coordinates)
        inputs : array_like, shape (n, n_features)

        Returns
        -------
        ndarray, shape (n,), or (n, n_outputs) with several outputs

        Raises
        ------
        TypeError, ValueError
            If there are no predictions, or the arrays do not fit.
        """
        kind = type(self).__name__
        raise TypeError(f"predict needs an objective with a model, like an EmpiricalRisk; this is a {kind}")

    @abstractmethod
    def loss(self, measure: Measure) -> float:
        """The functional without its ridge, U(mu)."""

    @abstractmethod
    def loss_gradient(self, measure: Measure, batch: ArrayLike | None = None) -> FloatArray:
        """Gradient in theta of the first variation of U, at each particle of the measure.

        Parameters
        ----------
        measure : Cloud or array_like, shape (N, n_coordinates)
        batch : array_like of int, shape (B,), optional
            Rows of the samples to estimate it from, without bias over all batches of the size B.

        Returns
        -------
        ndarray, shape (N, n_coordinates)
            0 in frozen coordinates.
        """

    def loss_gradient_by_particle(self, measure: Measure, rows: ArrayLike) -> FloatArray:
        """`loss_gradient` of each particle from a batch of its own, for `PerParticleMinibatch`; defined by some.

        Parameters
        ----------
        measure : Cloud or array_like, shape (N, n_coordinates)
        rows : array_like of int, shape (N, B)

        Returns
        -------
        ndarray, shape (N, n_coordinates)
        """
        raise NotImplementedError(f"{type(self).__name__} does not define loss_gradient_by_particle")

    @abstractmethod
    def first_variation(self, measure: Measure, batch: ArrayLike | None = None) -> Potential:
        """First variation of F at a measure: a function of theta, frozen, for value and gradient at any points.

        It is normalised as the formula gives it, without centring: for a risk with sample weights s,
        ``sum_i s_i l'(f_mu(z_i), y_i) h(theta, z_i) + l2 |theta|**2``. From a batch I of B of the n samples it is
        estimated without bias, the ridge as it is::

            (n / B) * sum_{i in I} s_i l'(f_mu(z_i), y_i) h(theta, z_i) + l2 |theta|**2

        Parameters
        ----------
        measure : Cloud or array_like, shape (N, n_coordinates)
        batch : array_like of int, shape (B,), optional
            As in `loss_gradient`: at the particles of the measure the gradients agree.

        Returns
        -------
        Potential
            With the ridge, or another reference, of the objective.
        """

    def value(self, measure: Measure) -> float:
        """``F(mu)``, ridge included, entropy not: that of finitely many particles is infinite.

        Parameters
        ----------
        measure : Cloud or array_like, shape (N, n_coordinates)

        Raises
        ------
        TypeError, ValueError
            If the particles have the wrong shape, are no array of reals, or are not finite.
        """
        cloud = self.cloud(measure)
        return self.loss(cloud) + self.ridge(cloud)

    def ridge(self, measure: Measure) -> float:
        """``l2 * E_mu |theta|**2``, over the moving coordinates.

        Parameters
        ----------
        measure : Cloud or array_like, shape (N, n_coordinates)
        """
        cloud = self.cloud(measure)
        return cloud.mean(self.reference.energy(cloud.particles[..., : self.n_moving].astype(np.float64)))

    def gradient(self, measure: Measure, batch: ArrayLike | None = None) -> FloatArray:
        """Gradient ``b(theta; mu)`` of the first variation of F at each particle of the measure, ridge included.

        It is N times the gradient in a particle of F as a function of N particles.

        Parameters
        ----------
        measure : Cloud or array_like, shape (N, n_coordinates)
        batch : array_like of int, shape (B,), optional
            Rows of the samples to estimate the loss's part from; all of them by default.

        Returns
        -------
        ndarray, shape (N, n_coordinates)
            0 in frozen coordinates.

        Raises
        ------
        TypeError, ValueError
            If the particles have the wrong shape, are no array of reals, or are not finite; if a row does not exist.
        """
        cloud = self.cloud(measure)
        gradient = np.array(self.loss_gradient(cloud, batch))
        gradient[..., : self.n_moving] += self.reference.gradient(cloud.particles[..., : self.n_moving])
        return gradient

    def cloud(self, measure: Measure) -> Cloud:
        """A measure as a `Cloud`, once its particles are known to suit this objective."""
        cloud = measure if isinstance(measure, Cloud) else Cloud(measure)
        *members, _, p = cloud.particles.shape
        if tuple(members) != self.members or p != self.n_coordinates:
            expected = f"({', '.join(map(str, (*self.members, 'N', self.n_coordinates)))})"
            raise ValueError(f"particles must have shape {expected} to suit the objective, got {cloud.particles.shape}")
        return cloud

    def initial_particles(self, n_particles: int, place: Place | int = 0, dtype: DTypeLike = "float32") -> FloatArray:
        """Particles of one member for a run to start from, shape (n_particles, n_coordinates).

        Independent draws, uniform on bounded domains and elsewhere from N(0, I), unless the objective knows better.

        Parameters
        ----------
        n_particles : int
        place : Place or int
            Place in the noise, or a seed.
        dtype : {"float32", "float64"}
        """
        return self.space.draw(noise.start(place), n_particles, dtype)


class Potential(Objective):
    """Linear objective ``F(mu) = E_mu V + l2 E_mu |theta|**2``; its dynamics are plain Langevin, without interaction.

    The minimiser of ``F(mu) + temperature * Ent(mu)`` is the Gibbs law ``exp(-(V + l2 |theta|**2) / temperature)``.
    A potential is also what `Objective.first_variation` returns: a function of theta, which may be called.

    Parameters
    ----------
    gradient : callable
        Gradient of V: takes points, an array of shape (M, n_coordinates), and returns an array of that shape. It is
        called once a step with all particles, in the precision of the run.
    value : callable, optional
        V itself: takes points and returns shape (M,). Without it whatever needs a value raises TypeError, and the loss
        in a history is NaN.
    value_and_gradient : callable, optional
        Both at once, where that is cheaper than one after the other: takes points, returns shapes (M,) and
        (M, n_coordinates).
    hessian_vector : callable, optional
        Products of the Hessian of V with vectors: takes points and vectors, both of shape (M, n_coordinates), and
        returns that shape. By default they are central differences of the gradient, good to about 1e-9 of it.
    n_coordinates : int, optional
        Length of a point.
    n_moving : int, optional
        Leading coordinates that move; by default all.
    l2 : float
        Coefficient of ``|theta|**2`` (no factor 1/2), on moving coordinates.
    space : Space, optional
        In place of the two numbers of coordinates, for a domain.
    reference : Reference, optional
        In place of l2.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; later, if a function returns another shape.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> well = mfld.Potential(lambda x: x, lambda x: np.sum(x**2, axis=1) / 2, n_coordinates=2, l2=0.5)
    >>> points = np.array([[1.0, 0.0], [1.0, 1.0]])
    >>> well(points)                                 # V + l2 |theta|^2
    array([1., 2.])
    >>> well.gradient(points)
    array([[2., 0.],
           [2., 2.]])
    >>> well.value(points)                           # E_mu of it: the two points weigh the same
    1.5
    """

    linear = True

    def __init__(
        self,
        gradient: Callable[[FloatArray], ArrayLike],
        value: Callable[[FloatArray], ArrayLike] | None = None,
        *,
        value_and_gradient: Callable[[FloatArray], tuple[ArrayLike, ArrayLike]] | None = None,
        hessian_vector: Callable[[FloatArray, FloatArray], ArrayLike] | None = None,
        n_coordinates: int | None = None,
        n_moving: int | None = None,
        l2: float = 0.0,
        space: Space | None = None,
        reference: Reference | None = None,
    ) -> None:
        validation.function("gradient", gradient)
        if value is not None:
            validation.function("value", value)
        if value_and_gradient is not None:
            validation.function("value_and_gradient", value_and_gradient)
        if hessian_vector is not None:
            validation.function("hessian_vector", hessian_vector)
        self.space = spaces.given(n_coordinates, n_moving, space)
        self.reference = references.given(l2, reference, self.space)
        self.has_value = value is not None
        self._gradient = gradient
        self._value = value
        self._value_and_gradient = value_and_gradient
        self._hessian_vector = hessian_vector

    @classmethod
    def from_jax(cls, function: Callable[..., Any], **arguments: Any) -> Potential:
        """Potential from a function in JAX, with gradients and products with Hessians by automatic differentiation.

        Parameters
        ----------
        function : callable
            V of points: takes a JAX array of shape (M, p), returns shape (M,), each value of its own point alone. It is
            compiled once for each shape and precision, with 64-bit types enabled where the points are float64.
        **arguments
            As in `Potential`: n_coordinates, n_moving, l2, space, reference.

        Raises
        ------
        ImportError
            If JAX is not installed.
        TypeError, ValueError
            If an argument is of the wrong kind or out of range; later, if the function returns another shape.

        Examples
        --------
        >>> import mfld
        >>> try:
        ...     import jax
        ... except ImportError:
        ...     pass
        ... else:
        ...     quartic = mfld.Potential.from_jax(lambda x: (x**4).sum(axis=1) / 4, n_coordinates=1)
        ...     assert quartic.hessian_vector([[2.0]], [[1.0]]).tolist() == [[12.0]]
        """
        validation.function("function", function)
        return cls._from_function(autodiff.Jax(function, autodiff.of_points, "Potential"), arguments)

    @classmethod
    def from_torch(cls, function: Callable[..., Any], **arguments: Any) -> Potential:
        """Potential from a function in torch, with gradients and products with Hessians by automatic differentiation.

        Parameters
        ----------
        function : callable
            As in `from_jax`, of a torch tensor on the CPU in the precision of the run. No gradient is left in
            parameters that it uses.
        **arguments
            As in `Potential`: n_coordinates, n_moving, l2, space, reference.

        Raises
        ------
        ImportError
            If torch is not installed.
        TypeError, ValueError
            If an argument is of the wrong kind or out of range; later, if the function returns another shape.

        Examples
        --------
        >>> import mfld
        >>> try:
        ...     import torch
        ... except ImportError:
        ...     pass
        ... else:
        ...     quartic = mfld.Potential.from_torch(lambda x: (x**4).sum(dim=1) / 4, n_coordinates=1)
        ...     assert quartic.hessian_vector([[2.0]], [[1.0]]).tolist() == [[12.0]]
        """
        validation.function("function", function)
        return cls._from_function(autodiff.Torch(function, autodiff.of_points, "Potential"), arguments)

    @staticmethod
    def _from_function(found: autodiff.Differentiable, arguments: dict[str, Any]) -> Potential:
        for name in ("gradient", "value", "value_and_gradient", "hessian_vector"):
            if name in arguments:
                raise TypeError(f"{name} must be left out: it is made from function")
        return Potential(
            found.gradient,
            found.value,
            value_and_gradient=found.value_and_gradient,
            hessian_vector=found.along,
            **arguments,
        )

    @property
    def has_hessian(self) -> bool:
        """True where products with the Hessian are its own, and not differences of the gradient."""
        return self._hessian_vector is not None

    def __call__(self, points: ArrayLike) -> FloatArray:
        """Value of the potential, ``V(theta) + l2 |theta|**2``, at each point.

        Parameters
        ----------
        points : array_like, shape (M, n_coordinates)

        Returns
        -------
        ndarray, shape (M,)

        Raises
        ------
        TypeError, ValueError
            If the potential has no value, or the points do not fit.
        """
        points = self.cloud(points).particles
        energy = self.reference.energy(points[..., : self.n_moving])
        return self._values(points) + energy

    def loss(self, measure: Measure) -> float:
        cloud = self.cloud(measure)
        return cloud.mean(self._values(cloud.particles))

    def loss_gradient(self, measure: Measure, batch: ArrayLike | None = None) -> FloatArray:
        self._check_no_batch(batch)
        points = self.cloud(measure).particles
        return self._as_gradient(self._gradient(points.copy()), points)

    def value_and_gradient(self, points: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """V and its gradient at each point, without the ridge: what a sampler with acceptance needs.

        Parameters
        ----------
        points : array_like, shape (M, n_coordinates)

        Returns
        -------
        ndarray, shape (M,); ndarray, shape (M, n_coordinates)

        Raises
        ------
        TypeError, ValueError
            If the potential has no value, or the points do not fit.
        """
        points = self.cloud(points).particles
        if self._value_and_gradient is None:
            return self._values(points), self.loss_gradient(points)
        value, gradient = self._value_and_gradient(points.copy())
        return self._as_values(value, points), self._as_gradient(gradient, points)

    def hessian_vector(self, points: ArrayLike, vectors: ArrayLike) -> FloatArray:
        """Products ``H(theta) v`` of the Hessian of the potential, ridge included, with a vector for each point.

        Parameters
        ----------
        points, vectors : array_like, shape (M, n_coordinates)

        Returns
        -------
        ndarray, shape (M, n_coordinates), in the precision of the points

        Raises
        ------
        TypeError, ValueError
            If an array is of the wrong kind or shape.

        Examples
        --------
        >>> import mfld
        >>> quartic = mfld.Potential(lambda x: x**3, n_coordinates=1, l2=0.5)
        >>> quartic.hessian_vector([[2.0]], [[1.0]]).round(6)
        array([[13.]])
        """
        theta = self.cloud(points).particles
        v = validation.array("vectors", vectors, theta.dtype)
        validation.shape("vectors", v, theta.shape, "to match the points")
        if self._hessian_vector is None:
            product = self._difference(theta.astype(np.float64), v.astype(np.float64))
        else:
            given = self._hessian_vector(theta.copy(), v.copy())
            name = "the result of hessian_vector"
            product = validation.returned(name, given, theta.shape, theta.dtype, "to match the points")
        product = product.astype(theta.dtype)
        product[:, self.n_moving :] = 0
        product[:, : self.n_moving] += self.reference.gradient(v[:, : self.n_moving])
        return product

    def _difference(self, points: FloatArray, vectors: FloatArray) -> FloatArray:
        """Central differences of the gradient of V along the vectors."""
        length = np.sqrt(np.sum(vectors**2, axis=1, keepdims=True))
        size = np.maximum(1, np.sqrt(np.mean(points**2, axis=1, keepdims=True)))
        # The cube root balances the truncation, h**2, against the rounding, eps / h.
        width = np.cbrt(np.finfo(np.float64).eps) * size / np.where(length > 0, length, 1)
        above, below = (self.loss_gradient(points + sign * width * vectors) for sign in (1, -1))
        return np.asarray((above - below) / (2 * width))

    def first_variation(self, measure: Measure, batch: ArrayLike | None = None) -> Potential:
        """The potential itself, whatever the measure."""
        self._check_no_batch(batch)
        return self

    @staticmethod
    def _check_no_batch(batch: ArrayLike | None) -> None:
        if batch is not None:
            raise ValueError("batch must be None for a Potential, which has no samples")

    def _values(self, points: FloatArray) -> FloatArray:
        if self._value is None:
            raise TypeError("this Potential has a gradient only: give it value=, the function V itself")
        # A copy, here and for the gradient: the function may keep it, change it or hand it to a library that wants to.
        return self._as_values(self._value(points.copy()), points)

    def _as_values(self, result: ArrayLike, points: FloatArray) -> FloatArray:
        validation.unmasked("the result of value", result)
        values = np.asarray(result, points.dtype)
        validation.shape("the result of value", values, points.shape[:-1], "to match the points")
        return values

    def _as_gradient(self, result: ArrayLike, points: FloatArray) -> FloatArray:
        validation.unmasked("the result of gradient", result)
        gradient = np.array(result)
        validation.shape("the result of gradient", gradient, points.shape, "to match the points")
        with np.errstate(over="ignore"):  # what overflows is found by the move
            gradient = gradient.astype(points.dtype, copy=False)
        gradient[..., self.n_moving :] = 0
        return gradient
