"""Annealed sampling of a Gibbs measure: sequential Monte Carlo from a wide Gaussian, and the same way back.

Chains that start in one place look mixed although they have seen one mode of several. Particles that come from a wide
Gaussian down a ladder of temperatures meet every mode while it is still connected to the others, and what they weigh
on the way estimates the partition function: from one side on the way down, from the other on the way back.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfld import _core
from mfld.noise import Place
from mfld.objectives import Potential
from mfld.sampling import Chains, GibbsSampler
from mfld.validation import FloatArray

_HOTTEST = 30  # doublings of the temperature, at most
_HOPS = (1.0, 0.25)  # times the spread of the particles
_FEWEST_HOPS = 0.01
_CALM = 2.0  # range of V / temperature over the Gaussian where the ladder begins
_SEEN = 512  # points for the mean of V
_WARM = 1 / 16  # inverse temperature where V is never calm
_SMALLEST = 1e-9  # step of a ladder, in the share of V or the logarithm of the inverse temperature


class Rung(NamedTuple):
    """One law of a ladder, ``exp(-inverse (share V + l2 |theta|**2) / temperature)``, and the steps of its chains.

    ``hop`` is the standard deviation of the steps of a random walk, 0 where such steps are never accepted.
    """

    inverse: float
    share: float
    step_size: float = math.nan
    hop: float = 0.0


@dataclass(frozen=True)
class Ladder:
    """Rungs from the first, a Gaussian, to the law that is meant, ``inverse = share = 1``; moves of chains on each."""

    rungs: tuple[Rung, ...]
    n_moves: int

    @property
    def moves(self) -> int:
        """Moves of each chain on the way from one end to the other."""
        return (len(self.rungs) - 1) * self.n_moves


@dataclass(frozen=True, eq=False)
class Particles:
    """Particles on a rung: ``chains`` have the values and gradients of V itself; ``moves`` numbers their noise.

    ``log_ratio``, shape (number of cells,): of each cell the logarithm of its estimate of the ratio of the partition
    function of this rung to that of the rung where it began.
    """

    points: FloatArray
    values: FloatArray
    gradient: FloatArray
    log_weights: NDArray[np.float64]
    log_ratio: NDArray[np.float64]
    moves: int


class Annealer:
    """Sequential Monte Carlo for ``exp(-(V + l2 |theta|**2) / temperature)``.

    Particles begin at ``N(0, temperature / (2 inverse l2))``, with a first inverse temperature at which V hardly
    matters. On each rung they are weighted by the ratio of the densities, resampled where the effective sample size is
    below half, and moved by the Metropolis-adjusted Langevin algorithm (`GibbsSampler`). They are cut into *cells* of
    one size, which share the ladder and nothing else: on a ladder that is fixed beforehand, the ratio of partition
    functions that a cell's weights estimate, and this ratio times the cell's mean of any function, have no bias for
    any number of particles (Del Moral 2004, "Feynman-Kac formulae"). The ladder itself comes from a run of its own,
    whose rungs keep the conditional effective sample size (Zhou, Johansen, Aston 2016, "Toward automatic model
    comparison: an adaptive sequential Monte Carlo approach") and whose step sizes adapt. The way `back`, from
    particles that have the law, estimates the inverse of the ratio in the same way: it is bidirectional Monte Carlo
    (Grosse, Ghahramani, Adams 2015, "Sandwiching the marginal likelihood using bidirectional Monte Carlo").

    Parameters
    ----------
    potential : Potential
        V, with l2 positive.
    temperature : float
    cell : int
        Particles of a cell.
    place : Place
        Of the noise; the number of moves counts its steps.
    confined : float
        Share of the ridge that V cannot take away far out, in (0, 1]. Below 1 the law may be as wide as the Gaussian of
        this share: the particles then begin at a wider one and go to it straight, ridge and V growing together, so that
        no law on the way is wider than the first. From a narrower one the weights would have no variance.
    """

    def __init__(
        self, potential: Potential, temperature: float, cell: int, place: Place, confined: float = 1.0
    ) -> None:
        self.potential, self.temperature, self.cell, self.place = potential, temperature, cell, place
        self.confined = confined

    def ladder(self, frozen: FloatArray, n_moves: int, kept: float, most_moves: int) -> tuple[Ladder | None, int]:
        """Ladder by a run of its own, from the frozen coordinates of its particles, and the moves that it took.

        None where it would take more than ``most_moves``.
        """
        at = Rung(self._first(frozen), 0.0)
        now = self.begin(frozen, Ladder((at,), 0), 0)
        rungs: list[Rung] = [at]
        n_moving = self.potential.n_moving
        while at.inverse < 1 or at.share < 1:
            if now.moves + 2 * n_moves > most_moves:
                return None, now.moves
            at = self._next(now, at, kept)
            now = self._resampled(replace(now, log_weights=self._change(now, rungs[-1], at)), 1.0, whole=True)
            at = at._replace(step_size=rungs[-1].step_size, hop=float(now.points[:, :n_moving].std(axis=0).mean()))
            accepted = 0.0
            for k in range(2 * n_moves):
                if k % 2 == 0:
                    now, step_size = self._langevin(now, at, adapt=True)
                    at = at._replace(step_size=step_size)
                else:
                    now, share = self._hop(now, at)
                    accepted += share
            if accepted < _FEWEST_HOPS * n_moves:
                at = at._replace(hop=0.0)
            rungs.append(at)
        return Ladder(tuple(rungs), n_moves), now.moves

    def begin(self, frozen: FloatArray, ladder: Ladder, moves: int) -> Particles:
        """Independent draws of the first rung; ``frozen``, shape (M, p), has the coordinates that do not move."""
        n_moving, points = self.potential.n_moving, frozen.copy()
        place = self.place.ahead(moves)
        draws = place.normals(len(points), n_moving, points.dtype, "init")
        points[:, :n_moving] = draws * points.dtype.type(self._width(ladder.rungs[0].inverse))
        values, gradient = self.potential.value_and_gradient(points)
        n_cells = len(points) // self.cell
        return Particles(points, values, gradient, np.zeros(len(points)), np.zeros(n_cells), moves)

    def down(self, now: Particles, ladder: Ladder) -> Particles:
        """From the first rung to the law that is meant, where particles weigh the same."""
        for before, at in itertools.pairwise(ladder.rungs):
            now = replace(now, log_weights=now.log_weights + self._change(now, before, at))
            now = self._resampled(now, 1.0 if at is ladder.rungs[-1] else 0.5)
            for k in range(ladder.n_moves):
                now = self.moved(now, at, k)
        return now

    def moved(self, now: Particles, at: Rung, k: int) -> Particles:
        """Particles after the k-th move on a rung, which every second time is a hop, where these are accepted."""
        return self._hop(now, at)[0] if k % 2 == 1 and at.hop > 0 else self._langevin(now, at, adapt=False)[0]

    def back(self, now: Particles, ladder: Ladder) -> Particles:
        """From the last rung to the first, by the moves and weights of `down` in the reverse order."""
        now = replace(now, log_ratio=np.zeros_like(now.log_ratio))
        rungs = ladder.rungs[::-1]
        for at, after in itertools.pairwise(rungs):
            for k in range(ladder.n_moves):
                now = self.moved(now, at, k)
            now = replace(now, log_weights=now.log_weights + self._change(now, at, after))
            now = self._resampled(now, 1.0 if after is rungs[-1] else 0.5)
        return now

    def log_normaliser(self, ladder: Ladder) -> float:
        """Logarithm of the partition function of the first rung."""
        n_moving, l2 = self.potential.n_moving, self.potential.l2
        return n_moving / 2 * math.log(math.pi * self.temperature / (ladder.rungs[0].inverse * l2))

    def reach(self, frozen: FloatArray, depth: float) -> float:
        """Distance from 0 within which wells lie that count, where V is nowhere below ``-depth``.

        By Jensen's inequality log Z is at least that of the Gaussian less the mean of V there, over the temperature: a
        well is no match for it where ``l2 |theta|**2`` is above that mean plus the depth. Of V without a bound it is
        where the ladder begins, times two.
        """
        points = np.tile(frozen, (_SEEN, 1))
        if not math.isfinite(depth):
            return 2 * math.sqrt(self.potential.n_moving) * self._width(self._first(points))
        values = self.begin(points, Ladder((Rung(1.0, 0.0),), 0), 0).values
        return math.sqrt(max(float(values.mean(dtype=np.float64)) + depth, self.temperature) / self.potential.l2)

    def _width(self, inverse: float) -> float:
        return math.sqrt(self.temperature / (2 * inverse * self.potential.l2))

    def _first(self, frozen: FloatArray) -> float:
        """Inverse temperature at and below which V hardly varies over the Gaussian.

        Below it too: a narrow Gaussian may not see what is beyond it. Wells that count in the end have
        ``l2 |theta|**2`` within the range of V, hence lie within two standard deviations of such a Gaussian. Where V
        grows as fast as the ridge there is none.
        """
        if self.confined < 1:
            return _WARM * self.confined
        calm = None
        for k in reversed(range(_HOTTEST)):
            values = self.begin(frozen, Ladder((Rung(0.5**k, 0.0),), 0), 0).values.astype(np.float64)
            if not 0.5**k * float(np.ptp(values)) <= _CALM * self.temperature:
                break
            calm = 0.5**k
        return _WARM if calm is None else calm

    def _next(self, now: Particles, at: Rung, kept: float) -> Rung:
        """The next rung, as far as the sample size allows: V is let in first, then the temperature falls.

        Where V takes ridge away both happen together, so that ``inverse * share``, the part of V, grows by t.
        """
        straight = self.confined < 1
        if straight:
            part, first = at.inverse * at.share, self._first(now.points)
            whole = 1 - part
        else:
            whole = 1 - at.share if at.share < 1 else -math.log(at.inverse)

        def rung(t: float) -> Rung:
            if straight:
                inverse = first + (part + t) * (1 - first)
                return Rung(1.0, 1.0) if t == whole else Rung(inverse, (part + t) / inverse)
            if at.share < 1:
                return Rung(at.inverse, 1.0 if t == whole else at.share + t)
            return Rung(1.0 if t == whole else at.inverse * math.exp(t), 1.0)

        low, high = 0.0, whole
        if self._effective(now, at, rung(high)) < kept:
            for _ in range(14):
                middle = (low + high) / 2
                low, high = (middle, high) if self._effective(now, at, rung(middle)) >= kept else (low, middle)
            while low == 0 and high > _SMALLEST:  # V may range over many orders where it grows faster than the ridge
                high /= 2
                low = high if self._effective(now, at, rung(high)) >= kept else 0.0
            high = max(low, _SMALLEST)
        return rung(high)

    def _effective(self, now: Particles, before: Rung, after: Rung) -> float:
        """Effective share of particles of equal weight after the weights from one rung to another, or on the way back.

        On the way back, from a law of density w to one of density 1, it is ``1 / (E w E 1 / w)`` by particles of the
        latter.
        """
        change = self._change(now, before, after)
        weights = np.exp(change - change.max())
        n, total = len(weights), float(weights.sum())
        inverse = float(np.exp(change.min() - change).sum()) * math.exp(min(change.max() - change.min(), 600.0))
        return min(total**2 / float(np.sum(weights**2)) / n, n * n / (total * inverse))

    def _change(self, now: Particles, before: Rung, after: Rung) -> NDArray[np.float64]:
        """Logarithms of the ratio of the densities of two rungs at the particles."""
        share = after.inverse * after.share - before.inverse * before.share
        change = -share / self.temperature * now.values.astype(np.float64)
        if after.inverse != before.inverse:
            moving = now.points[:, : self.potential.n_moving].astype(np.float64)
            ridge = np.einsum("ij,ij->i", moving, moving)
            change -= (after.inverse - before.inverse) * self.potential.l2 / self.temperature * ridge
        return change

    def _resampled(self, now: Particles, below: float, *, whole: bool = False) -> Particles:
        """Cells whose effective share is at most ``below`` anew with equal weights, by systematic resampling."""
        m = len(now.points) if whole else self.cell
        weights = now.log_weights.reshape(-1, m)
        highest = weights.max(axis=1, keepdims=True)
        weights = np.exp(weights - highest)
        total = weights.sum(axis=1, keepdims=True)
        poor = (total[:, 0] ** 2 <= below * m * np.sum(weights**2, axis=1) * (1 + 1e-12)) | (below >= 1)
        if not poor.any():
            return now
        place = self.place.ahead(now.moves).beside("annealing")
        offsets = place.uniforms(len(weights), 1)
        heights = np.cumsum(weights[poor] * (m / total[poor]), axis=1)
        first = m * np.arange(poor.sum())[:, np.newaxis]
        heights[:, -1] = m
        found = np.searchsorted((heights + first).ravel(), (first + np.arange(m) + offsets[poor]).ravel(), side="left")
        # Rounding may lead out of the own cell.
        found = np.clip(found.reshape(-1, m) - first, 0, m - 1)
        rows = np.arange(len(now.points)).reshape(-1, m)
        rows[poor] = np.take_along_axis(rows[poor], found, axis=1)
        picked = rows.ravel()
        log_ratio, left = now.log_ratio, now.log_weights
        if not whole:
            log_ratio = log_ratio + np.where(poor, highest[:, 0] + np.log(total[:, 0] / m), 0.0)
            left = np.where(np.repeat(poor, m), 0.0, left)
        else:
            left = np.zeros_like(left)
        return replace(
            now,
            points=now.points[picked],
            values=now.values[picked],
            gradient=now.gradient[picked],
            log_weights=left,
            log_ratio=log_ratio,
        )

    def _langevin(self, now: Particles, at: Rung, *, adapt: bool) -> tuple[Particles, float]:
        """Particles after a move of Langevin dynamics, and the step size for the next."""
        potential, place = self.potential if at.share == 1 else _part(self.potential, at.share), self.place
        temperature, step_size = self.temperature / at.inverse, at.step_size
        sampler = GibbsSampler(potential, temperature, place.key, place.population, place.num_threads)
        if math.isnan(step_size):
            slope = at.share**2 * float(np.mean(np.sum(now.gradient.astype(np.float64) ** 2, axis=1)))
            step_size = temperature / (2 * slope + 4 * self.potential.l2 * temperature)
        share = now.values.dtype.type(at.share)
        before = Chains(now.points, share * now.values, share * now.gradient, step_size, now.moves)
        chains = sampler.move(before, adapt=adapt)
        after = replace(
            now,
            points=chains.points,
            values=chains.values / share,
            gradient=chains.gradient / share,
            moves=chains.moves,
        )
        return after, chains.step_size

    def _hop(self, now: Particles, at: Rung) -> tuple[Particles, float]:
        """Particles after a step of a random walk, accepted by the values alone, and the share that was."""
        place, n_moving = self.place.ahead(now.moves), self.potential.n_moving
        # The affine step (c, h, s) with c and the gradient 0, at the temperature s**2 / (2 h).
        scale = at.hop * _HOPS[now.moves // 2 % len(_HOPS)]
        coefficients = (0.0, scale**2 * at.inverse / (2 * self.temperature), scale)
        numbers = (n_moving, coefficients, *place.of_members(()))
        level, proposals = np.zeros_like(now.points), now.points.copy()
        _core.backend.affine(proposals, level, *numbers)
        values, gradient = self.potential.value_and_gradient(proposals)
        moved = now.points.copy()
        energies = (self._energy(now.points, now.values, at), self._energy(proposals, values, at))
        _core.backend.accept(moved, energies[0], level, proposals, energies[1], level.copy(), *numbers)
        accepted = np.any(moved != now.points, axis=1)
        after = replace(
            now,
            points=moved,
            values=np.where(accepted, values, now.values),
            gradient=np.where(accepted[:, np.newaxis], gradient, now.gradient),
            moves=now.moves + 1,
        )
        return after, float(accepted.mean())

    def _energy(self, points: FloatArray, values: FloatArray, at: Rung) -> FloatArray:
        moving = points[:, : self.potential.n_moving].astype(np.float64)
        ridge = self.potential.l2 * np.einsum("ij,ij->i", moving, moving)
        energy: FloatArray = (at.share * values.astype(np.float64) + ridge).astype(points.dtype)
        return energy


def _part(potential: Potential, share: float) -> Potential:
    """The potential times a number, its ridge as it is."""

    def both(points: FloatArray) -> tuple[FloatArray, FloatArray]:
        values, gradient = potential.value_and_gradient(points)
        own = values.dtype.type(share)
        return own * values, own * gradient

    return Potential(
        lambda points: both(points)[1],
        lambda points: both(points)[0],
        value_and_gradient=both,
        space=potential.space,
        reference=potential.reference,
    )
