"""Expectations under the Gibbs measure of dual variables, and its partition function from both sides."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from mfld import validation, wells
from mfld.annealing import Annealer, Ladder, Particles, Rung
from mfld.noise import Place
from mfld.objectives import EmpiricalRisk
from mfld.validation import FloatArray, FloatDType
from mfld.wells import Wells

N_GROUPS = 32  # of particles: independent estimates of all that is estimated
LARGEST_R_HAT = 1.01  # Vehtari, Gelman, Simpson, Carpenter, Bürkner 2021
_WATCHED_ROWS = 8
_STAY = 32  # moves of a round at the end of the ladder
_SNAPSHOTS = 8  # of these
_FROZEN_DRAWS = 2048  # of each group, for the shares of frozen coordinates
_MOVES_OF_A_RUNG, _KEPT = 2, 0.75  # of the first ladder
_SIGNIFICANT = 4.0  # standard errors
_LARGEST_ERROR = 0.5  # of log Z, before the two sides are compared
_FEWEST_GROUPS = 0.25  # that carry the mass
_LARGEST_EXPONENT = 600.0  # of masses: beyond it the first round has seen nothing
_MOST_CONTRADICTED = 2  # rounds of a ladder, and ladders, that wells contradict
_KNOWN = 0.1  # error of the mass of a well, relative to it, up to which it is believed
_SURE = 1e-3  # share of a mass that is not known, which it surely has
_HOPELESS = 0.15  # below which a longer ladder is made at once
_SEARCHED = 16  # part of the budget that looking for wells may take
_FEWEST_SEARCHED = 1024  # points
_LEAST_SEARCHED = 256  # where there is little room
_SPACING = 2.5  # of points, in widths of the narrowest wells
ROUNDED = 3e-3  # error of V / temperature by rounding that may be


@dataclass(eq=False)
class GibbsEstimate:
    """Estimates of rounds of annealing, by groups; `rounds_of` makes them.

    Attributes
    ----------
    reason : str or None
        Why the particles do not count as mixed.
    n_moves : int
        Of each particle, in all.
    r_hat : float
        Rank-normalised split R-hat, of the potential and of the neurons at 8 rows; ``drifts`` where it is 1.01 or
        more by more than the noise of the groups.
    particles : ndarray, shape (M, p), or None
        A sample of the measure.
    covered : bool
        Whether wells were looked for at points as dense as the steepness of the neurons asks for.
    """

    reason: str | None = None
    n_moves: int = 0
    r_hat: float = math.nan
    drifts: bool = False
    particles: FloatArray | None = None
    covered: bool = False
    log_first: float = 0.0  # log Z where the ladder begins
    shift: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))  # taken off the logarithms of masses
    shares: NDArray[np.float64] = field(default_factory=lambda: np.ones((N_GROUPS, 1)))
    mass: NDArray[np.float64] = field(default_factory=lambda: np.zeros((N_GROUPS, 1)))
    returned: NDArray[np.float64] = field(default_factory=lambda: np.zeros((N_GROUPS, 1)))  # mass times that of back
    moments: NDArray[np.float64] = field(default_factory=lambda: np.zeros((N_GROUPS, 1, 1, 1)))
    inside: list[NDArray[np.float64]] = field(default_factory=list)  # mass of groups in the wells of a combination
    rounds: int = 0

    def predictions(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Predictions (n, K) of all groups, and of all but one (group, n, K)."""
        return _mixture(self.shares, self.mass, self.moments)

    def missed(self, searched: Sequence[Wells]) -> list[NDArray[np.float64]]:
        """Masses of wells above those of the particles there, as shares of the mass that was seen.

        It is 0 where the difference is within the error of the mass of the well. Of a mass that is hardly known only a
        thousandth counts: an estimate without bias, and nowhere negative, is above a thousand times the mass with a
        probability of a thousandth at most (Markov).
        """
        there, total, n = [one.sum(axis=0) for one in self.inside], self.mass.sum(axis=0), N_GROUPS * self.rounds
        shares = []
        for c, well in enumerate(searched):
            mass = n * np.exp(np.minimum(well.log_mass - self.log_first - self.shift[c], _LARGEST_EXPONENT))
            differs = np.abs(mass - there[c]) > _SIGNIFICANT * well.error * mass
            known = np.where(differs, mass - there[c], 0.0)
            shares.append(np.where(well.error < _KNOWN, known, np.maximum(_SURE * mass - there[c], 0.0)) / total[c])
        return shares

    def completed(self, risk: EmpiricalRisk, searched: Sequence[Wells]) -> tuple[NDArray[np.float64], float, float]:
        """Predictions (n, K) and log Z on the way down with the masses of the wells, and the share that was missed."""
        predictions, log_z, seen = np.zeros(self.moments.shape[2:]), self.log_partition()[0][0], 0.0
        inputs, threads = risk.inputs.astype(np.float64), validation.num_threads(risk.num_threads)
        share, mass, moments = self.shares.sum(axis=0), self.mass.sum(axis=0), self.moments.sum(axis=0)
        for c, (well, missing) in enumerate(zip(searched, self.missed(searched), strict=True)):
            total, part = 1 + missing.sum(), share[c] / share.sum()
            of_all = moments[c] / mass[c]
            for k in np.flatnonzero(missing):
                of_all = of_all + missing[k] * risk.model.predictions(well.points[k], well.weights[k], inputs, threads)
            predictions += part * of_all / total
            log_z += part * math.log(total)
            seen += part / total
        return predictions, float(log_z), 1 - seen

    def log_partition(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """log Z on the way down and on the way back: of all groups (2,), and of all but one (group, 2)."""
        share, shares = _left_out(self.shares)
        share, shares = share / share.sum(), shares / shares.sum(axis=1, keepdims=True)
        total, totals = _left_out(self.mass)
        returned, returned_out = _left_out(self.returned)
        n = N_GROUPS * self.rounds
        with np.errstate(divide="ignore", invalid="ignore"):  # one group may have all the mass
            down = share @ np.log(total / n)
            downs = np.sum(shares * np.log(totals / (n - self.rounds)), axis=1)
            up = -share @ np.log(returned / total)
            ups = -np.sum(shares * np.log(returned_out / totals), axis=1)
            first, firsts = self.log_first + share @ self.shift, self.log_first + shares @ self.shift
            return np.array([down + first, up + first]), np.column_stack([downs + firsts, ups + firsts])

    def log_partition_bounds(self, quantile: float) -> tuple[float, float, float, float]:
        """Estimate of log Z, its standard error, and bounds from below and above by so many standard errors.

        Half of what both ways differ by is part of the error. The way down underestimates log Z and the way back
        overestimates it, by Jensen's inequality.
        """
        values, left_out = self.log_partition()
        errors = jackknife_error(left_out)
        weights = 1 / np.maximum(errors, 1e-12) ** 2
        estimate = float(weights @ values / weights.sum())
        lower, upper = values[0] - quantile * errors[0], values[1] + quantile * errors[1]
        error = math.hypot(1 / math.sqrt(weights.sum()), (values[1] - values[0]) / 2)
        return estimate, error, float(min(lower, upper)), float(max(lower, upper))


def jackknife_error(left_out: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard error by the values that leave one group out, along the first axis."""
    error: NDArray[np.float64] = np.sqrt((len(left_out) - 1) * left_out.var(axis=0))
    return error


def _left_out(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum over the groups, and over all but one."""
    total = values.sum(axis=0)
    return total, total - values


def _mixture(
    shares: NDArray[np.float64], mass: NDArray[np.float64], moments: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``sum_c share_c sum_g moment_gc / sum_g mass_gc``, with all groups and with all but one."""
    share, shares_out = _left_out(shares)
    total, totals = _left_out(mass)
    moment, moments_out = _left_out(moments)
    weights, weights_out = share / share.sum() / total, shares_out / shares_out.sum(axis=1, keepdims=True) / totals
    return np.einsum("c,cik->ik", weights, moment), np.einsum("gc,gcik->gik", weights_out, moments_out)


def rounds_of(
    risk: EmpiricalRisk,
    dual: NDArray[np.float64],
    temperature: float,
    l2: float,
    *,
    n_chains: int,
    most_moves: int,
    place: Place,
    quantile: float,
    dtype: FloatDType,
    confined: float,
    enough: Callable[[GibbsEstimate], bool],
    holds: Callable[[GibbsEstimate, NDArray[np.float64], float], bool],
) -> GibbsEstimate:
    """Rounds of annealing until the particles look mixed and ``enough`` says so, or the moves are spent.

    A round takes every particle down the ladder of an `Annealer`, some moves further, and back. It counts as mixed when
    both ways agree on log Z within ``quantile`` standard errors, which have to be small themselves; when not few of the
    groups carry most of the mass; and when split R-hat is below 1.01, up to the noise of the groups. Where more rounds
    would not help, a longer ladder is made. Wells are looked for beforehand (`mfld.wells.find`): what is said of the
    measure has to hold with the mass that they have and particles did not find there too, by ``holds`` of the estimate,
    predictions and log Z. ``confined`` is the share of the ridge that the neurons leave, as an `Annealer` takes it.
    """
    threads = place.threads
    annealers = _Cells.of(risk, n_chains, place, dtype)
    if isinstance(annealers, str):
        return GibbsEstimate(annealers)
    cells = annealers
    annealer = Annealer(risk.linearised(dual, l2, threads), temperature, cells.size, place, confined)
    searched, covered = _wells(annealer, cells, risk, dual, n_chains * most_moves // _SEARCHED)
    n_moves, kept, moves = _MOVES_OF_A_RUNG, _KEPT, -(-sum(one.evaluations for one in searched) // n_chains)
    found, contradicted = GibbsEstimate(covered=covered), 0
    why = "the moves did not suffice for a ladder"
    while True:
        ladder, spent = annealer.ladder(cells.frozen, n_moves, kept, most_moves - moves)
        moves += spent
        if ladder is None:
            break
        found = GibbsEstimate(covered=covered, log_first=annealer.log_normaliser(ladder), shares=cells.shares)
        mixing = _Mixing(risk, annealer, cells.size)
        of_a_round = 2 * ladder.moves + _STAY
        while moves + of_a_round <= most_moves:
            _round(found, risk, annealer, ladder, cells, searched, mixing, moves)
            moves += of_a_round
            found.n_moves = moves
            why, longer = _complaint(found, quantile)
            if longer:
                break
            if why == "" and (enough(found) or moves + of_a_round > most_moves):
                predictions, log_z, missed = found.completed(risk, searched)
                if holds(found, predictions, log_z):
                    return found
                why = f"log Z is {log_z:.4g} with wells that have {100 * missed:.2g} % of the mass beyond the particles"
                if found.rounds >= _MOST_CONTRADICTED:
                    contradicted += 1
                    break
        else:
            break
        if contradicted == _MOST_CONTRADICTED:
            break
        n_moves, kept = 2 * n_moves, (1 + kept) / 2
    found.n_moves = moves
    if why:
        found.reason = f"the particles did not mix within {moves} moves ({why})"
    return found


def rounding(risk: EmpiricalRisk, dual: NDArray[np.float64], temperature: float, l2: float, place: Place) -> float:
    """Size of V over the temperature, by which rounding is multiplied.

    Of neurons without a bound it is that at the reference Gaussian, and where their slope there leads to on the ridge.
    """
    bound = max(map(abs, risk.model.output_range))
    if math.isfinite(bound):
        return bound * float(np.average(np.abs(dual).sum(axis=1), weights=risk.sample_weight)) / temperature
    potential, frozen = risk.linearised(dual, l2, place.threads), np.zeros((N_GROUPS, risk.n_coordinates))
    frozen[:, risk.n_moving :] = risk.initial_particles(N_GROUPS, place, np.float64)[:, risk.n_moving :]
    drawn = Annealer(potential, temperature, 1, place).begin(frozen, Ladder((Rung(1.0, 0.0),), 0), 0)
    slope = float(np.sum(drawn.gradient**2, axis=1).max())
    return (float(np.abs(drawn.values).max()) + slope / (2 * l2)) / temperature


def _complaint(found: GibbsEstimate, quantile: float) -> tuple[str, bool]:
    """Why the particles do not count as mixed, empty where they do; and whether the ladder is at fault."""
    values, left_out = found.log_partition()
    squares = np.sum((found.mass / found.mass.sum(axis=0)) ** 2, axis=0)
    share = float(1 / squares.max()) / N_GROUPS
    if share < _FEWEST_GROUPS:
        return f"{100 * share:.0f} % of the groups carry the mass", found.rounds >= 4 or share < _HOPELESS
    if not np.isfinite(left_out).all():
        return "the partition function is lost in rounding", True
    error = float(jackknife_error(left_out[:, 1] - left_out[:, 0]))
    difference = float(values[1] - values[0])
    if error > _LARGEST_ERROR:
        return f"log Z is known within {error:.2g} only", found.rounds >= 4
    if abs(difference) > quantile * error + 1e-3:
        return f"log Z is {values[0]:.4g} on the way down and {values[1]:.4g} on the way back", True
    if found.drifts:
        return f"R-hat {found.r_hat:.3f}", found.rounds >= 16
    return "", False


def _round(
    found: GibbsEstimate,
    risk: EmpiricalRisk,
    annealer: Annealer,
    ladder: Ladder,
    cells: _Cells,
    searched: Sequence[Wells],
    mixing: _Mixing,
    moves: int,
) -> None:
    now = annealer.down(annealer.begin(cells.frozen, ladder, moves), ladder)
    log_mass = now.log_ratio.reshape(N_GROUPS, -1)
    if found.rounds == 0:
        found.shift = log_mass.max(axis=0)  # of each combination, whose partition functions have nothing in common
    mass = np.exp(np.minimum(log_mass - found.shift, _LARGEST_EXPONENT))
    seen: list[Particles] = []
    for k in range(_STAY):
        now = annealer.moved(now, ladder.rungs[-1], k)
        if (k + 1) % (_STAY // _SNAPSHOTS) == 0:
            seen.append(now)
    snapshots = np.stack([one.points for one in seen])
    moments = mass[:, :, np.newaxis, np.newaxis] * cells.predictions(risk, snapshots)
    inside = [mass[:, c, np.newaxis] * shares for c, shares in enumerate(cells.shares_inside(searched, snapshots))]
    found.inside = [a + b for a, b in zip(found.inside, inside, strict=True)] if found.rounds else inside
    found.r_hat, found.drifts = mixing.look(seen, mass)
    log_back = annealer.back(now, ladder).log_ratio.reshape(N_GROUPS, -1)
    # Of several rounds a group has the mean of the inverse, weighted by the masses. A product of the two is about 1.
    found.returned = found.returned + np.exp(np.minimum(log_mass + log_back, _LARGEST_EXPONENT))
    found.mass, found.moments, found.rounds = found.mass + mass, found.moments + moments, found.rounds + 1
    found.particles = cells.of_equal_weight(now.points, mass, annealer.place.ahead(moves))


def _wells(
    annealer: Annealer, cells: _Cells, risk: EmpiricalRisk, dual: NDArray[np.float64], most: int
) -> tuple[list[Wells], bool]:
    """Wells of each combination of frozen coordinates, at a cost of about so many evaluations for all of them.

    And whether the points were as dense as they should be, which takes bounded neurons and few coordinates.
    """
    potential, place = annealer.potential, annealer.place.beside("wells")
    combinations, q = cells.combinations, potential.n_moving
    most = max(most // len(combinations), _LEAST_SEARCHED)
    bound, steepness = max(map(abs, risk.model.output_range)), risk.model.steepness(risk.inputs)
    sizes = np.sum(np.abs(dual), axis=1) * (1 if risk.sample_weight is None else len(dual) * risk.sample_weight)
    found = []
    covered = True
    for c, frozen in enumerate(combinations):
        reach = annealer.reach(frozen, bound * float(sizes.mean()))
        needed = math.inf if sizes.any() else 1.0
        if sizes.any() and steepness is not None and math.isfinite(bound):
            # A well is hardly narrower than the inverse of how steep neurons are, for their size.
            width = bound / math.sqrt(float(np.average(steepness**2, weights=sizes)))
            needed = math.exp(min(q * math.log(max(2 * reach / (_SPACING * width), 1.0)), _LARGEST_EXPONENT))
        evenly = needed <= most or (q <= wells.COVERED and math.isfinite(needed))
        n = int(max(min(needed, most) if evenly else 0, _FEWEST_SEARCHED))
        found.append(wells.find(potential, annealer.temperature, frozen, reach, n, place.ahead(c), most, evenly=evenly))
        covered &= needed <= most
    return found, covered


@dataclass(frozen=True, eq=False)
class _Cells:
    """Places of the particles: groups, in them a cell for each combination of frozen coordinates."""

    frozen: FloatArray  # particles with their frozen coordinates
    size: int
    shares: NDArray[np.float64]  # of the combinations, by group

    @classmethod
    def of(cls, risk: EmpiricalRisk, n_chains: int, place: Place, dtype: FloatDType) -> _Cells | str:
        """The cells, or why there are none."""
        n_moving, p = risk.n_moving, risk.n_coordinates
        if n_moving == p:
            empty = np.zeros((n_chains, p), dtype)
            return cls(empty, n_chains // N_GROUPS, np.ones((N_GROUPS, 1)))
        drawn = risk.initial_particles(N_GROUPS * _FROZEN_DRAWS, place.beside("annealing"), dtype)[:, n_moving:]
        combinations, which = np.unique(drawn, axis=0, return_inverse=True)
        n = len(combinations)
        size = n_chains // (N_GROUPS * n)
        if size == 0:
            return f"{n} combinations of frozen coordinates need n_chains of at least {N_GROUPS * n}, got {n_chains}"
        groups = which.reshape(N_GROUPS, -1)
        shares = np.stack([np.bincount(group, minlength=n) for group in groups]) / groups.shape[1]
        frozen = np.zeros((N_GROUPS, n, size, p), dtype)
        frozen[..., n_moving:] = combinations[np.newaxis, :, np.newaxis]
        return cls(frozen.reshape(-1, p), size, shares)

    @property
    def combinations(self) -> FloatArray:
        """Points that have the frozen coordinates of each combination."""
        n, p = self.shares.shape[1], self.frozen.shape[1]
        points: FloatArray = self.frozen.reshape(N_GROUPS, n, self.size, p)[0, :, 0]
        return points

    def predictions(self, risk: EmpiricalRisk, snapshots: FloatArray) -> NDArray[np.float64]:
        """Predictions (group, combination, n, K) from snapshots (time, particle, coordinate)."""
        times, _, p = snapshots.shape
        each = snapshots.reshape(times, -1, self.size, p).transpose(1, 0, 2, 3).reshape(-1, times * self.size, p)
        inputs, threads = risk.inputs.astype(snapshots.dtype), validation.num_threads(risk.num_threads)
        found = [risk.model.predictions(np.ascontiguousarray(one), None, inputs, threads) for one in each]
        return np.stack(found).astype(np.float64).reshape(N_GROUPS, -1, *found[0].shape)

    def shares_inside(self, searched: Sequence[Wells], snapshots: FloatArray) -> list[NDArray[np.float64]]:
        """Of each combination the shares (group, well) of the particles of snapshots that are in its wells."""
        times, _, p = snapshots.shape
        each = snapshots.reshape(times, N_GROUPS, -1, self.size, p)
        shares = []
        for c, found in enumerate(searched):
            region = found.region(each[:, :, c].reshape(-1, p)).reshape(times, N_GROUPS, self.size)
            wells_of = np.arange(len(found.log_mass))
            shares.append(np.mean(region[..., np.newaxis] == wells_of, axis=(0, 2)))
        return shares

    def of_equal_weight(self, points: FloatArray, mass: NDArray[np.float64], place: Place) -> FloatArray:
        """As many points, by the mass of the groups: systematic resampling over the cells of each combination."""
        n = mass.shape[1]
        each = points.reshape(N_GROUPS, n, self.size, -1)
        offsets = place.beside("annealing").uniforms(n, 1, stream="init")[:, 0]
        picked = []
        for c, offset in enumerate(offsets):
            of_groups = np.repeat(mass[:, c] / mass[:, c].sum() / self.size, self.size)
            heights = np.cumsum(of_groups) * len(of_groups)
            found = np.searchsorted(heights, np.arange(len(of_groups)) + offset)
            picked.append(each[:, c].reshape(len(of_groups), -1)[np.minimum(found, len(of_groups) - 1)])
        return np.concatenate(picked)


class _Mixing:
    """Rank-normalised split R-hat: the halves of the stays at the end of the ladder, over all rounds so far.

    Ranks are those among the particles of the first round. Groups are independent by construction, so that what they
    differ by is in the standard errors, and only what changes with time says that the ladder ends too early.
    """

    def __init__(self, risk: EmpiricalRisk, annealer: Annealer, cell: int) -> None:
        rows = np.unique(np.linspace(0, risk.n_samples - 1, _WATCHED_ROWS).astype(int))
        self._risk, self._rows, self._cell = risk, risk.inputs[rows], cell
        self._threads = annealer.place.threads
        self._sorted: NDArray[np.float64] | None = None
        self._sums: NDArray[np.float64] | float = 0.0  # of scores and their squares, by group and half
        self._weight: NDArray[np.float64] | float = 0.0

    def look(self, seen: list[Particles], mass: NDArray[np.float64]) -> tuple[float, bool]:
        """R-hat with this round, and whether it is 1.01 or more because of more than the noise of the groups."""
        watched = np.stack([self._watched(one) for one in (seen[len(seen) // 2 - 1], seen[-1])])  # (2, M, functions)
        if self._sorted is None:
            self._sorted = np.sort(watched.reshape(-1, watched.shape[-1]), axis=0)
        scores = np.empty_like(watched)
        for f in range(watched.shape[-1]):
            scores[..., f] = _normal_scores(self._sorted[:, f], watched[..., f])
        # Of the combinations of frozen coordinates each counts by its mass.
        weights = np.repeat(mass.ravel(), self._cell).reshape(len(mass), -1)
        parts = scores.reshape(2, *weights.shape, -1)
        self._sums = self._sums + np.stack([np.einsum("gm,hgmf->ghf", weights, power) for power in (parts, parts**2)])
        self._weight = self._weight + weights.sum(axis=1)
        total, totals = _left_out(np.asarray(self._weight))
        sums, sums_out = _left_out(np.asarray(self._sums)[0])
        means = sums / total
        within = np.mean(np.asarray(self._sums)[1].sum(axis=0) / total - means**2, axis=0)
        ratio = np.divide(np.var(means, axis=0, ddof=1), within, out=np.zeros_like(within), where=within > 1e-12)
        r_hat = np.sqrt(1 + ratio)
        with np.errstate(invalid="ignore"):  # one group may have all the mass
            change = np.diff(sums_out / totals[:, np.newaxis, np.newaxis], axis=1)[:, 0]
        beyond = np.abs(means[1] - means[0]) > _SIGNIFICANT * jackknife_error(change)
        return float(r_hat.max()), bool(np.any((r_hat >= LARGEST_R_HAT) & beyond))

    def _watched(self, now: Particles) -> NDArray[np.float64]:
        neurons = self._risk.model.neurons(now.points, self._rows.astype(now.points.dtype), self._threads)
        columns = np.moveaxis(neurons, 1, 0).reshape(len(now.points), -1)
        return np.column_stack([now.values, columns]).astype(np.float64)


def _normal_scores(ordered: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normal quantiles of the ranks of values among ordered ones; ties have the mean of theirs."""
    low, high = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    scores: NDArray[np.float64] = np.interp((low + high) / (2 * len(ordered)), _SHARES, _SCORES)
    return scores


_SHARES = (np.arange(4096) + 0.5) / 4096
_SCORES = np.array([NormalDist().inv_cdf(share) for share in _SHARES])
