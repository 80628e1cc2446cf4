"""The Fokker-Planck equation of Langevin dynamics, on a grid in one or two dimensions (needs ``mfld[diagnostics]``).

Density of infinitely many particles in continuous time, for ``dX = -grad V dt + sqrt(2 T) dB``::

    d mu / dt = div(mu grad V + T grad mu),        V = dF/dmu(mu)

V is a potential, or the first variation of an objective at the density itself. It is the oracle of particle runs:
what differs from it is step size and number of particles.

Space: finite volumes with the fluxes of Scharfetter and Gummel (Chang and Cooper), order 2; between neighbouring cells
i and j at distance dx the rate is ``T / dx**2 * B((V_j - V_i) / T)`` with ``B(x) = x / (exp(x) - 1)``, so that
``exp(-V / T)`` at the centres of the cells is stationary exactly. Time: implicit Euler, order 1; densities stay
positive and keep their mass at every step size, and the identity of entropy dissipation is exact for a potential::

    KL(mu_k | pi) - KL(mu_k+1 | pi) = h T I(mu_k+1 | pi) + KL(mu_k | mu_k+1)

with the Fisher information I of the scheme, ``sum over faces of flux * jump of log(mu / pi)``. For an objective the
first variation is that of the end of the step, by fixed-point iteration: where F is convex, the free energy
``F + T Ent`` then never rises, at any step size.

Sources: Scharfetter, Gummel 1969, "Large-signal analysis of a silicon Read diode oscillator"; Chang, Cooper 1970,
"A practical difference scheme for Fokker-Planck equations".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import extras, validation
from mfld.errors import ConvergenceError
from mfld.floating import underflow_is_zero
from mfld.objectives import Objective
from mfld.state import Cloud

__all__ = ["Evolution", "FokkerPlanck"]

Vector = NDArray[np.float64]

_FLOOR = 1e-300  # densities below it count as this in logarithms
_MOST_ITERATIONS = 100  # of the fixed point of a step
_MIXED = 5  # earlier iterations that one looks at
_FIXED = 1e-12  # change of the energies, against their size, of a fixed point
_DROWNED = 4 * float(np.finfo(np.float64).eps)  # a gap, against the largest rate, that is rounding
_NARROWEST = 1e-145  # cell, whose square divides
_MOST_CELLS = 1_000_000
_STIFFEST = 1e12  # time steps times rates, beside which the 1 of an implicit step keeps some digits


@dataclass(frozen=True, eq=False, repr=False)
class Evolution:
    """Densities over time.

    Attributes
    ----------
    grid : FokkerPlanck
        What they are the solution of.
    times : ndarray, shape (K,)
        Times of the records, from 0.
    density : ndarray, shape (K, \\*n_cells)
        At the centres of the cells.
    history : dict of str to ndarray, shape (K,)
        ``mass`` as a step left it, before its rounding is scaled away; ``entropy``, the integral of mu log mu;
        ``energy``, F(mu); ``free_energy``, F + T Ent; and ``kl`` and ``fisher``, the divergences to the Gibbs law of
        the first variation at mu, the target of a potential. The free energy falls at the rate ``T**2 fisher``.
    """

    grid: FokkerPlanck
    times: Vector
    density: Vector
    history: Mapping[str, Vector]

    def __repr__(self) -> str:
        cells = " x ".join(map(str, self.grid.n_cells))
        return f"Evolution({len(self.times)} densities on {cells} cells, up to time {self.times[-1]:.6g})"

    def cloud(self, record: int = -1) -> Cloud:
        """A density as a measure: the centres of the cells, with their masses as weights."""
        return self.grid.cloud(self.density[record])


class FokkerPlanck:
    """Fokker-Planck equation of an objective at a temperature, on a grid.

    Parameters
    ----------
    objective : Objective
        With one or two coordinates, all moving: a `Potential` with a value, or any objective with a first variation
        and a value, such as the risk of a two-layer network with one or two parameters.
    temperature : float
        Positive.
    n_cells : int or sequence of int
        Cells along each coordinate.
    limits : array_like, shape (m, 2), optional
        Ends of the grid in each of the m coordinates that are Euclidean, through which nothing flows; choose them where
        the density has vanished. Coordinates on a torus are periodic, those of a box end at its faces.

    Attributes
    ----------
    points : ndarray, shape (M, p)
        Centres of all cells.
    axes : tuple of ndarray
        Their coordinates along each axis.
    cell : float
        Length or area of a cell.

    Raises
    ------
    ImportError
        If SciPy is not installed: ``pip install 'mfld[diagnostics]'``.
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or does not suit the space of the objective.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> well = mfld.potentials.Gaussian([0.0])                      # V = x**2 / 2: Ornstein-Uhlenbeck
    >>> equation = mfld.FokkerPlanck(well, temperature=1.0, n_cells=200, limits=[(-8, 8)])
    >>> start = lambda x: np.exp(-2 * (x[:, 0] - 1) ** 2)           # N(1, 1/4)
    >>> evolution = equation.run(start, n_steps=200, time_step=0.005)
    >>> mean = evolution.cloud().mean(equation.points[:, 0])
    >>> bool(abs(mean - np.exp(-1)) < 2e-3), round(equation.spectral_gap(), 2)
    (True, 1.0)
    """

    def __init__(
        self,
        objective: Objective,
        temperature: float,
        n_cells: int | Sequence[int] = 400,
        limits: ArrayLike | None = None,
    ) -> None:
        self._load()
        validation.instance("objective", objective, Objective, "an Objective")
        self.objective = objective.on_threads(1)  # grids are small
        self.temperature = validation.real("temperature", temperature, positive=True)
        ends, self._periodic = _ends(objective, limits)
        self.n_cells = _lengths(n_cells, len(ends))
        self._widths = (ends[:, 1] - ends[:, 0]) / self.n_cells
        self.axes = tuple(
            low + width * (np.arange(n) + 0.5)
            for (low, _), width, n in zip(ends, self._widths, self.n_cells, strict=True)
        )
        self.cell = float(np.prod(self._widths))
        smallest = float(self._widths.min())
        if not smallest > _NARROWEST or not 0 < self.cell < np.inf:
            raise ValueError(f"limits must leave cells of some size, got {ends.tolist()} for {self.n_cells} cells")
        centres = np.stack(np.meshgrid(*self.axes, indexing="ij"), axis=-1).reshape(-1, len(ends))
        centres.flags.writeable = False
        self.points: Vector = centres
        self._faces = self._neighbours()
        self._energies = self._first_variation(None) if objective.linear else None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_sparse", "_linalg")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._load()

    def _load(self) -> None:
        self._sparse = extras.library("scipy.sparse", "diagnostics", "FokkerPlanck")
        self._linalg = extras.library("scipy.sparse.linalg", "diagnostics", "FokkerPlanck")

    def __repr__(self) -> str:
        cells = " x ".join(map(str, self.n_cells))
        return f"FokkerPlanck({self.objective!r}, temperature={self.temperature:g}, {cells} cells)"

    def cloud(self, density: ArrayLike) -> Cloud:
        """A density on the grid as a measure: the centres of the cells, with their masses as weights."""
        return Cloud(self.points, self._normalised(density))

    @underflow_is_zero
    def run(
        self,
        density: ArrayLike | Callable[[Vector], ArrayLike],
        n_steps: int,
        time_step: float,
        record_every: int | None = None,
    ) -> Evolution:
        """Densities from a start, by implicit steps.

        Parameters
        ----------
        density : array_like, shape n_cells, or callable
            Start, at the centres of the cells: numbers of at least 0, normalised to mass 1; or a function that takes
            the centres, shape (M, p), and returns them, shape (M,). `histogram` makes one of particles.
        n_steps : int
        time_step : float
            Positive. In the time of the equation, in which a step of `Overdamped` dynamics takes its step size.
        record_every : int, optional
            Default: about 100 records.

        Raises
        ------
        ConvergenceError
            If the fixed-point iteration of a step does not converge: the time step is too large for it.
        TypeError, ValueError
            If an argument is of the wrong kind or out of range.
        """
        n_steps = validation.integer("n_steps", n_steps, 1, validation.MAX_STEP)
        time_step = validation.real("time_step", time_step, positive=True)
        every = max(1, n_steps // 100) if record_every is None else validation.integer("record_every", record_every, 1)
        mass = self._normalised(density(self.points) if callable(density) else density)
        step = self._linear_step(time_step) if self._energies is not None else self._mean_field_step(time_step)
        times, densities, records = [0.0], [mass], [{**self._record(mass), "mass": 1.0}]
        for k in range(1, n_steps + 1):
            solved = step(mass)
            total = float(solved.sum())
            mass = solved / total  # 1 but for rounding, which is not to add up
            if k % every == 0 or k == n_steps:
                times.append(k * time_step)
                densities.append(mass)
                records.append({**self._record(mass), "mass": total})
        history = {name: np.array([record[name] for record in records]) for name in records[0]}
        density = np.stack(densities).reshape(-1, *self.n_cells) / self.cell
        return Evolution(self, np.array(times), density, history)

    @underflow_is_zero
    def gibbs(self, density: ArrayLike | None = None) -> Vector:
        """Density ``exp(-V / T) / Z``, shape n_cells: of a potential the target, else the proximal Gibbs law.

        Parameters
        ----------
        density : array_like, shape n_cells, optional
            Where the first variation is taken; a potential needs none.
        """
        energies = self._energies_at(density)
        weights = np.exp((energies.min() - energies) / self.temperature)
        return np.asarray(weights / (weights.sum() * self.cell)).reshape(self.n_cells)

    @underflow_is_zero
    def spectral_gap(self, density: ArrayLike | None = None) -> float:
        """Smallest positive eigenvalue of the generator: the rate at which everything forgets its start.

        It is the generalised symmetric eigenproblem ``integral T grad u . grad v pi = gap * integral u v pi``, scaled
        by sqrt(pi) to a standard one, by the Lanczos method with shift and inversion. The Poincare constant of the
        Gibbs law is gap / T, which no log-Sobolev constant of it exceeds. Its absolute error is the rounding of the
        largest eigenvalue, about ``T / cell**2``; a gap that drowns in it, of wells that are deep, is given as 0.

        Parameters
        ----------
        density : array_like, shape n_cells, optional
            As in `gibbs`: the generator then has the first variation at this density, and stays there.
        """
        left, right, up, down = self._rates(self._energies_at(density))
        n = len(self.points)
        diagonal = np.bincount(left, up, n) + np.bincount(right, down, n)
        beside = -np.sqrt(up) * np.sqrt(down)
        rows = np.concatenate([np.arange(n), left, right])
        columns = np.concatenate([np.arange(n), right, left])
        matrix = self._sparse.csc_matrix((np.concatenate([diagonal, beside, beside]), (rows, columns)), (n, n))
        start = np.cos(np.arange(n))  # no random numbers
        shift = -1e-3 * self.temperature / float(np.max(self._widths * self.n_cells)) ** 2
        values = self._linalg.eigsh(matrix, k=2, sigma=shift, which="LM", v0=start, return_eigenvectors=False)
        gap = float(np.max(values))
        return gap if gap > _DROWNED * float(diagonal.max()) else 0.0

    def histogram(self, measure: Cloud | ArrayLike) -> Vector:
        """Density of a cloud on the grid, shape n_cells: its masses in the cells over their size.

        Particles beyond the ends of the grid count for the whole and are in no cell.

        Parameters
        ----------
        measure : Cloud or array_like, shape (N, p)
        """
        cloud = self.objective.cloud(measure)
        halves = self._widths / 2
        edges = [np.append(axis - half, axis[-1] + half) for axis, half in zip(self.axes, halves, strict=True)]
        weights = np.full(len(cloud.particles), 1 / len(cloud.particles)) if cloud.weights is None else cloud.weights
        masses, _ = np.histogramdd(cloud.particles.astype(np.float64), bins=edges, weights=weights.astype(np.float64))
        return np.asarray(masses / self.cell)

    # ---- one step ----------------------------------------------------------------------------------------------------

    def _linear_step(self, time_step: float) -> Callable[[Vector], Vector]:
        assert self._energies is not None
        return self._implicit(self._energies, time_step)

    def _mean_field_step(self, time_step: float) -> Callable[[Vector], Vector]:
        """A step whose first variation is that of its end, found by Anderson's mixing of the last few energies.

        Energies are mixed, not masses: a step with any energies has positive masses. Source: Walker, Ni 2011, "Anderson
        acceleration for fixed-point iterations".
        """

        def step(mass: Vector) -> Vector:
            energies = self._first_variation(mass)
            tried: list[tuple[Vector, Vector]] = []
            for _ in range(_MOST_ITERATIONS):
                later = self._implicit(energies, time_step)(mass)
                residual = self._first_variation(later) - energies
                if np.abs(residual).max() <= _FIXED * (np.abs(energies).max() + self.temperature):
                    return later
                tried = [*tried[-_MIXED:], (energies, residual)]
                energies = energies + residual
                if len(tried) > 1:
                    steps, falls = (np.diff([pair[k] for pair in tried], axis=0).T for k in (0, 1))
                    share = np.linalg.lstsq(falls, residual, rcond=None)[0]
                    energies = energies - (steps + falls) @ share
            raise ConvergenceError(
                f"the fixed point of a step was not reached in {_MOST_ITERATIONS} iterations; a time_step below "
                f"{time_step:g} usually helps"
            )

        return step

    def _implicit(self, energies: Vector, time_step: float) -> Callable[[Vector], Vector]:
        """Solver of ``(1 - h L) later = mass`` by LU without pivoting, which an M-matrix does not need.

        All its factors then have the signs of an M-matrix, so that the solution is positive in rounded numbers, too.
        """
        left, right, up, down = self._rates(energies)
        n = len(self.points)
        leaving = np.bincount(left, up, n) + np.bincount(right, down, n)
        if not time_step * leaving.max() < _STIFFEST:
            most = _STIFFEST / leaving.max()
            raise ValueError(f"time_step must be below {most:.3g} on this grid, got {time_step:g}")
        diagonal = 1 + time_step * leaving
        rows = np.concatenate([np.arange(n), right, left])
        columns = np.concatenate([np.arange(n), left, right])
        values = np.concatenate([diagonal, -time_step * up, -time_step * down])
        matrix = self._sparse.csc_matrix((values, (rows, columns)), (n, n))
        factors = self._linalg.splu(
            matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
        solve: Callable[[Vector], Vector] = factors.solve
        return solve

    def _rates(self, energies: Vector) -> tuple[NDArray[np.int64], NDArray[np.int64], Vector, Vector]:
        """Cells on both sides of each face, and the rates from the first to the second, and back."""
        left, right, scale = self._faces
        jump = (energies[right] - energies[left]) / self.temperature
        rates = self.temperature * scale
        return left, right, rates * _bernoulli(jump), rates * _bernoulli(-jump)

    def _neighbours(self) -> tuple[NDArray[np.int64], NDArray[np.int64], Vector]:
        """Cells on both sides of each face, and one over the squared distance of their centres."""
        numbers = np.arange(len(self.points)).reshape(self.n_cells)
        left, right, scale = [], [], []
        for axis, (width, periodic) in enumerate(zip(self._widths, self._periodic, strict=True)):
            lines = np.moveaxis(numbers, axis, 0)
            first, second = (lines, np.roll(lines, -1, axis=0)) if periodic else (lines[:-1], lines[1:])
            left.append(first.ravel())
            right.append(second.ravel())
            scale.append(np.full(first.size, width**-2))
        return np.concatenate(left), np.concatenate(right), np.concatenate(scale)

    # ---- functionals -------------------------------------------------------------------------------------------------

    def _record(self, mass: Vector) -> dict[str, float]:
        temperature = self.temperature
        energies = self._first_variation(mass) if self._energies is None else self._energies
        logs = np.log(np.maximum(mass / self.cell, _FLOOR))
        entropy = float(mass @ logs)
        lowest = energies.min()
        partition = np.exp((lowest - energies) / temperature).sum() * self.cell
        log_normaliser = float(np.log(partition) - lowest / temperature)
        left, right, up, down = self._rates(energies)
        ratio = logs + energies / temperature
        flux = up * mass[left] - down * mass[right]
        energy = float(mass @ energies) if self._energies is not None else self.objective.value(self._as_cloud(mass))
        return {
            "entropy": entropy,
            "energy": energy,
            "free_energy": energy + temperature * entropy,
            "kl": entropy + float(mass @ energies) / temperature + log_normaliser,
            "fisher": float(flux @ (ratio[left] - ratio[right])) / temperature,
        }

    def _energies_at(self, density: ArrayLike | None) -> Vector:
        if self._energies is not None:
            return self._energies
        if density is None:
            raise ValueError("density must be given for an objective that is not linear, got None")
        return self._first_variation(self._normalised(density))

    def _first_variation(self, mass: Vector | None) -> Vector:
        """Energies of all cells: of a potential, or of the first variation at masses."""
        measure = Cloud(self.points) if mass is None else self._as_cloud(mass)
        energies = np.asarray(self.objective.first_variation(measure)(self.points), np.float64)
        if not np.isfinite(energies).all():
            raise ValueError("limits must lie where the objective is finite: it is infinite or not a number at a cell")
        return energies

    def _as_cloud(self, mass: Vector) -> Cloud:
        return Cloud(self.points, mass)

    def _normalised(self, density: ArrayLike) -> Vector:
        """Masses of the cells, shape (M,), that sum to 1."""
        given = validation.array("density", density, np.float64)
        if given.shape != (len(self.points),):
            validation.shape("density", given, self.n_cells, "to match n_cells")
        flat = given.reshape(-1)
        return np.asarray(validation.weights("density", flat, flat.shape, "", np.float64))


def _bernoulli(x: Vector) -> Vector:
    """``x / (exp(x) - 1)``, which is 1 at 0."""
    with np.errstate(over="ignore"):
        grown = np.expm1(x)
    result: Vector = np.divide(x, grown, out=np.ones_like(x), where=grown != 0)
    return result


def _lengths(n_cells: int | Sequence[int], n_axes: int) -> tuple[int, ...]:
    several = isinstance(n_cells, (list, tuple)) or (isinstance(n_cells, np.ndarray) and n_cells.ndim > 0)
    lengths: list[Any] = list(n_cells) if several else [n_cells] * n_axes  # type: ignore[arg-type]
    if len(lengths) != n_axes:
        raise ValueError(f"n_cells must be one number, or one for each of {n_axes} coordinates, got {n_cells}")
    checked = tuple(validation.integer("n_cells", length, 4, _MOST_CELLS) for length in lengths)
    if np.prod([float(length) for length in checked]) > _MOST_CELLS:
        raise ValueError(f"n_cells must be at most {_MOST_CELLS} together, got {checked}")
    return checked


def _ends(objective: Objective, limits: ArrayLike | None) -> tuple[Vector, list[bool]]:
    """Ends of the grid along each coordinate, and whether it is periodic there."""
    space = objective.space
    if space.n_coordinates > 2 or space.n_frozen or objective.members:
        raise ValueError(f"objective must have one or two coordinates, all moving, and no members, got {objective!r}")
    ends: list[tuple[float, float] | None] = []
    periodic: list[bool] = []
    for block in space.domain:
        if block.flat:
            ends += [None] * block.n_coordinates
        elif block.limits is not None:
            ends += list(zip(*(end.tolist() for end in block.limits), strict=True))
        else:
            raise ValueError(f"objective must live on Euclidean space, a torus or a box, got {block}")
        periodic += [block.kind == "torus"] * block.n_coordinates
    n_free = ends.count(None)
    given = np.zeros((0, 2))
    if n_free:
        if limits is None:
            raise ValueError(f"limits must be given for {n_free} Euclidean coordinate(s), got None")
        pairs = validation.array("limits", limits, np.float64)
        given = np.array(pairs[np.newaxis] if pairs.ndim == 1 else pairs, np.float64)
        validation.shape("limits", given, (n_free, 2), "(Euclidean coordinates, ends)")
        if not (given[:, 0] < given[:, 1]).all():
            raise ValueError(f"limits must rise in each coordinate, got {given.tolist()}")
    elif limits is not None:
        raise ValueError(f"limits must be left out where no coordinate is Euclidean, got {validation.show(limits)}")
    free = iter(given.tolist())
    return np.array([next(free) if end is None else end for end in ends], np.float64), periodic
