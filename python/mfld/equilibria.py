"""Certificates of equilibria: the Nikaido-Isoda gap of a game, and the exploitability of its players.

What player i can gain by a change of its own measure, while the others stand still, is its exploitability; their sum is
the Nikaido-Isoda gap, for zero-sum games the duality gap, which is 0 at an equilibrium and nowhere else. With entropies
it is infinite for a cloud. As for `mfld.certificate`, what is certified is therefore the Gibbs measures of the clouds,
the best responses to them::

    hat_i ~ exp(-V_i(.; clouds) / T_i),       V_i(.; mu) = the potential that player i faces at the measures mu
    exploitability_i = T_i KL(hat_i | best response to hat_-i) = T_i (E_hat_i D_i + log E_hat_i exp(-D_i))
    D_i = (V_i(.; hat) - V_i(.; clouds)) / T_i

for payoffs that are linear in each measure; derived from the formula for bilinear games (Nikaido, Isoda 1955, "Note on
non-cooperative convex games"). On an environment it is the mean over the atoms, each with its conditional measures.

By quadrature, all of this is computed. By chains, whose points of groups of independent ones stand for ``hat``, the
average of ``exp(-D_i)`` is in expectation too large, since the exponential is convex and the points of different
players are independent: an upper bound of the gap, which Student's law over the groups brings to a confidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mfld import noise, validation
from mfld.certificates import student_quantile
from mfld.diagnostics.normaliser import box
from mfld.floating import underflow_is_zero
from mfld.objectives import Game, Potential
from mfld.objectives.pairwise import PerPlayer, each_player
from mfld.sampling import GibbsSampler
from mfld.space import Space
from mfld.state import Cloud, State

__all__ = ["EquilibriumGap", "nikaido_isoda", "three_point_error"]

Vector = NDArray[np.float64]
Faced: TypeAlias = Mapping[str, list[tuple[float, Potential]]]
"""Of each player and each atom that it sees, the weight and the potential that it faces there."""

_NODES = {1: 1000, 2: 48}  # along an axis
_GROUPS = 32
_ROUNDS = 4  # of moves until points are forgotten
_SHARPEST = 0.6  # sum of the peaks of a law on nodes: a Gaussian whose deviation is two thirds of their distance
_LOST = 1e-9  # mass of a best response where the law before it has none
_LARGEST_EXPONENT = 1e-3 / np.finfo(np.float64).eps  # V / T, so that rounding does not move it by more than 1e-3
_FEWEST = 64  # points that must carry an average of exponentials for its error to be known


@dataclass(frozen=True)
class EquilibriumGap:
    """Distance from equilibrium of the best responses to some clouds.

    Attributes
    ----------
    gap : float
        Nikaido-Isoda gap, the sum of the exploitabilities.
    upper : float
        Upper bound: with the error of the quadrature, or of the chains at the confidence.
    exploitability : dict of str to float
        What each player could gain.
    method : str
        "quadrature" or "chains".
    best_responses : dict of str to Cloud
        The measures that are certified: nodes with weights, or points of the chains.
    reason : str or None
        Why there is no bound and ``upper`` is infinite: the chains have not mixed, their points are too few for a gap
        so large, the potentials are beyond rounding, or best responses are too narrow or too far apart for the nodes of
        the quadrature, whose gap means nothing then; else None.

    Examples
    --------
    >>> import mfld
    >>> saddle = mfld.Bilinear(mfld.payoffs.Polynomial({(1, 1): 1.0}), space=1, l2=0.5)
    >>> clouds = {"x": mfld.Cloud([[0.5]]), "y": mfld.Cloud([[0.0]])}
    >>> print(mfld.nikaido_isoda(saddle, clouds, temperature=1.0))
    Nikaido-Isoda gap 0.25, at most 0.25, by quadrature; exploitability: x 0.125, y 0.125
    """

    gap: float
    upper: float
    exploitability: Mapping[str, float]
    method: str
    best_responses: Mapping[str, Cloud] = field(repr=False)
    reason: str | None = None

    def __str__(self) -> str:
        each = ", ".join(f"{name} {value:.3g}" for name, value in self.exploitability.items())
        bound = f"at most {self.upper:.3g}" if self.reason is None else f"without a bound: {self.reason}"
        return f"Nikaido-Isoda gap {self.gap:.3g}, {bound}, by {self.method}; exploitability: {each}"


@underflow_is_zero
def nikaido_isoda(
    game: Game,
    clouds: State | Mapping[str, Cloud],
    temperature: PerPlayer[float],
    *,
    method: str = "automatic",
    confidence: float = 0.999,
    n_chains: int = 2048,
    most_moves: int = 500,
    seed: int = 0,
    num_threads: int | None = None,
) -> EquilibriumGap:
    """Nikaido-Isoda gap of the best responses to clouds, with an upper bound, and the exploitability of each player.

    Parameters
    ----------
    game : Game
        What players face has to be linear in their own measure, as in `PairwiseGame`.
    clouds : State or mapping of str to Cloud
        Of several replicates the mixtures.
    temperature : float or mapping of str to float
        Positive.
    method : {"automatic", "quadrature", "chains"}
        Quadrature is for players in up to two dimensions; chains, for Euclidean spaces.
    confidence : float
        Of the upper bound by chains.
    n_chains : int
        Of each player, a multiple of 32. The bound by chains is too large by about the variance of the payoff over
        ``n_chains / 16`` temperatures.
    most_moves : int
        Of each chain. The chains start at the particles.
    seed : int
        Of the chains.
    num_threads : int, optional
        It never changes the result.

    Returns
    -------
    EquilibriumGap

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or the method does not suit the game.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> saddle = mfld.Bilinear(mfld.payoffs.Polynomial({(1, 1): 1.0}), space=1, l2=0.5)
    >>> clouds = {"x": mfld.Cloud([[0.5]]), "y": mfld.Cloud([[0.0]])}
    >>> found = mfld.nikaido_isoda(saddle, clouds, temperature=1.0)     # hat: means 0 and 0.5
    >>> round(found.gap, 6), {name: round(own, 6) for name, own in found.exploitability.items()}
    (0.25, {'x': 0.125, 'y': 0.125})

    To stop a run:

    >>> near = mfld.StopWhen(lambda state, info: mfld.nikaido_isoda(saddle, state, 1.0).upper < 1e-2)
    >>> solver = mfld.DescentAscent(2000, step_size=0.1, temperature=1.0)
    >>> start = {"x": np.full((2000, 1), 3.0)}
    >>> result = solver.run(saddle, n_steps=1000, particles=start, callbacks=[near])
    >>> result.state.step < 200
    True
    """
    validation.num_threads(num_threads)
    game = validation.instance("game", game, Game, "a Game, like Bilinear").on_threads(num_threads)
    given = _clouds(game, clouds)
    temperatures = _temperatures(game, temperature)
    validation.choice("method", method, ("automatic", "quadrature", "chains"))
    confidence = validation.real("confidence", confidence)
    if not 0.5 <= confidence < 1:
        raise ValueError(f"confidence must be at least 0.5 and below 1, got {confidence}")
    n_chains = validation.integer("n_chains", n_chains, 2 * _GROUPS)
    if n_chains % _GROUPS:
        raise ValueError(f"n_chains must be a multiple of {_GROUPS}, got {n_chains}")
    most_moves = validation.integer("most_moves", most_moves, 1)
    seed = validation.seed(seed)
    faced = {name: _potentials(game, name, given) for name in game.players}
    few = all(_dimension(game.spaces[name]) in (1, 2) for name in game.players)
    if method == "automatic":
        method = "quadrature" if few else "chains"
    if method == "quadrature":
        if not few:
            raise ValueError("method must be 'chains' where a player has over two dimensions, or frozen coordinates")
        return _by_quadrature(game, faced, temperatures)
    for name in game.players:
        if not game.spaces[name].flat:
            raise ValueError(f"method 'chains' is for Euclidean spaces, got {game.spaces[name].domain} of {name}")
    return _by_chains(game, given, faced, temperatures, confidence, n_chains, most_moves, seed, num_threads)


@underflow_is_zero
def three_point_error(
    game: Game, candidates: Sequence[State | Mapping[str, Cloud]], temperature: PerPlayer[float]
) -> NDArray[np.float64]:
    """Nikaido-Isoda error of each of a few candidates for an equilibrium, among themselves.

    What players could gain at most by going over to what they do in another candidate; for a zero-sum game with the
    payoff L, entropies included, of the candidates (mu_k, nu_k)::

        error_k = max_j L(mu_k, nu_j) - min_j L(mu_j, nu_k)

    It is a lower bound of the gap of `nikaido_isoda`, and like this one of the best responses to the clouds, by
    quadrature: for players in up to two dimensions. With the results of three algorithms it is the three-point error of
    Kim et al. 2024, "Symmetric mean-field Langevin dynamics for distributional minimax problems".

    Parameters
    ----------
    game : Game
        As in `nikaido_isoda`.
    candidates : sequence of State or mapping of str to Cloud
        At least two, like the ends of runs of several algorithms.
    temperature : float or mapping of str to float
        Positive.

    Returns
    -------
    ndarray, shape (n_candidates,)
        At least 0, and 0 where a candidate is an equilibrium.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, a player has more than two dimensions, or a best response
        is too narrow for the nodes of the quadrature.

    Examples
    --------
    >>> import mfld
    >>> saddle = mfld.Bilinear(mfld.payoffs.Polynomial({(1, 1): 1.0}), space=1, l2=0.5)
    >>> candidates = [{"x": mfld.Cloud([[x]]), "y": mfld.Cloud([[0.0]])} for x in (0.0, 0.5)]
    >>> mfld.three_point_error(saddle, candidates, temperature=1.0).round(6)     # hat: means 0 and 0, and 0 and 0.5
    array([0.   , 0.125])
    """
    game = validation.instance("game", game, Game, "a Game, like Bilinear")
    validation.instance("candidates", candidates, Sequence, "a sequence of states or mappings")
    if len(candidates) < 2:
        raise ValueError(f"candidates must be at least two, got {len(candidates)}")
    temperatures = _temperatures(game, temperature)
    if not all(_dimension(game.spaces[name]) in (1, 2) for name in game.players):
        raise ValueError("game must have players in one or two dimensions, without frozen coordinates")
    frozen, hats, normalisers = [], [], []
    for number, candidate in enumerate(candidates):
        clouds = _clouds(game, candidate, f"candidates[{number}]")
        faced = {name: _potentials(game, name, clouds) for name in game.players}
        ends = {name: [_ends(own, temperatures[name]) for _, own in faced[name]] for name in game.players}
        responses, logarithms = _gibbs(game, faced, temperatures, ends, 1)
        for name, response in responses.items():
            if not all(_resolved(game.spaces[name], _masses(cloud)) for cloud in response.each()):
                raise ValueError(f"candidates[{number}]: the best response of {name} is narrower than the nodes")
        frozen.append(faced)
        hats.append(responses)
        normalisers.append(logarithms)
    errors = np.zeros(len(candidates))
    for k, there in enumerate(hats):
        for name, own_temperature in temperatures.items():
            now = _potentials(game, name, there)
            costs = []
            for j, own in enumerate(hats):
                # E V(.; hat of k) + T Ent(hat of j), whose density is exp(-V(.; clouds of j) / T) over its normaliser.
                members = zip(now, frozen[j][name], normalisers[j][name], own[name].each(), strict=True)
                costs.append(
                    sum(
                        atom
                        * (cloud.mean(potential(cloud.particles) - before(cloud.particles)) - own_temperature * log)
                        for (atom, potential), (_, before), log, cloud in members
                    )
                )
            errors[k] += costs[k] - min(costs)
    return errors


def _temperatures(game: Game, temperature: PerPlayer[float]) -> dict[str, float]:
    return {
        name: validation.real("temperature", own, positive=True)
        for name, own in each_player("temperature", temperature, game.players).items()
    }


def _clouds(game: Game, clouds: State | Mapping[str, Cloud], argument: str = "clouds") -> dict[str, Cloud]:
    found = clouds.clouds if isinstance(clouds, State) else clouds
    validation.instance(argument, found, Mapping, "a State or a mapping of players to clouds")
    if set(found) != set(game.players):
        raise ValueError(f"{argument} must have each of {', '.join(game.players)}, got {list(found)}")
    for name, cloud in found.items():
        validation.instance(f"{argument}[{name!r}]", cloud, Cloud, "a Cloud")
    if isinstance(clouds, State):
        apart = {name: State({name: cloud}, 0, 0).measure for name, cloud in found.items()}
    else:
        apart = {name: found[name] for name in game.players}
    for name, cloud in apart.items():
        expected: tuple[int | str, ...] = (*game.members.get(name, ()), "N", game.spaces[name].n_coordinates)
        validation.shape(f"the particles of {argument}[{name!r}]", cloud.particles, expected, "to suit the game")
    return apart


def _potentials(game: Game, name: str, clouds: Mapping[str, Cloud]) -> list[tuple[float, Potential]]:
    """Weight of each atom that a player sees, and the potential that it faces there."""
    faced = game.facing(name, clouds)
    if not faced.linear:
        raise TypeError(f"game must be linear in the measure of {name}, what it faces is {faced!r}")
    frozen = faced.first_variation(clouds[name])
    each = zip(frozen.conditionals, clouds[name].each(), strict=True)
    return [(weight, own.first_variation(cloud)) for (weight, own), cloud in each]


def _gain(difference: Vector, weights: Vector, temperature: float) -> float:
    """``T KL`` from D at points: ``T (E D + log E exp(-D))``, with all digits where it is small."""
    centred = difference - float(weights @ difference)
    lowest = min(float(centred.min()), 0.0)
    if lowest > -1:
        return temperature * math.log1p(max(float(weights @ (np.expm1(-centred) + centred)), 0.0))
    return temperature * max(-lowest + math.log(float(weights @ np.exp(lowest - centred))), 0.0)


# ---- quadrature ------------------------------------------------------------------------------------------------------


def _dimension(space: Space) -> int:
    """Of the domain; 0 where a quadrature does not know it."""
    if space.n_frozen or not all(block.flat or block.limits or block.kind == "sphere" for block in space.domain):
        return 0
    return sum(block.n_coordinates - (block.kind == "sphere") for block in space.domain)


def _by_quadrature(game: Game, faced: Faced, temperatures: Mapping[str, float]) -> EquilibriumGap:
    ends = {name: [_ends(own, temperatures[name]) for _, own in faced[name]] for name in game.players}
    hats, _ = _gibbs(game, faced, temperatures, ends, 2)
    # The best response to the best responses has to be seen as well.
    for name in game.players:
        for e, (_, own) in enumerate(_potentials(game, name, hats)):
            wider = _ends(own, temperatures[name])
            ends[name][e] = [(min(a, c), max(b, d)) for (a, b), (c, d) in zip(ends[name][e], wider, strict=True)]
    coarse, _ = _gains(game, faced, temperatures, _gibbs(game, faced, temperatures, ends, 2)[0])
    hats, _ = _gibbs(game, faced, temperatures, ends, 1)
    fine, reason = _gains(game, faced, temperatures, hats)
    gap, error = sum(fine.values()), abs(sum(fine.values()) - sum(coarse.values()))
    return EquilibriumGap(gap, gap + error if reason is None else math.inf, fine, "quadrature", hats, reason)


def _gains(
    game: Game, faced: Faced, temperatures: Mapping[str, float], hats: dict[str, Cloud]
) -> tuple[dict[str, float], str | None]:
    """Gains of the players, and a reason why they mean nothing, if nodes do not see both laws of each."""
    gains, reason = {}, None
    for name, temperature in temperatures.items():
        gains[name], space = 0.0, game.spaces[name]
        everywhere = _potentials(game, name, hats)
        for (atom, frozen), (_, now), cloud in zip(faced[name], everywhere, hats[name].each(), strict=True):
            points, weights = cloud.particles, _masses(cloud)
            there = weights > 0
            after = np.asarray(now(points), np.float64)
            difference = (after - np.asarray(frozen(points), np.float64)) / temperature
            gains[name] += atom * _gain(difference[there], weights[there], temperature)
            response = np.exp((after.min() - after) / temperature)
            response /= response.sum()
            if not atom:
                continue
            if not (_resolved(space, weights) and _resolved(space, response)):
                reason = f"a best response of {name} is narrower than the nodes of the quadrature"
            elif response[~there].sum() > _LOST:
                reason = f"the best responses of {name} are too far apart"
    return gains, reason


def _masses(cloud: Cloud) -> Vector:
    assert cloud.weights is not None  # of a quadrature
    return cloud.weights.astype(np.float64)


def _resolved(space: Space, masses: Vector) -> bool:
    """True for a law that is smooth on the nodes: total variation along an axis is twice the sum of its peaks."""
    dimension = _dimension(space)
    lattice = masses if dimension == 1 else masses.reshape(-1, math.isqrt(len(masses)))
    changes = [np.abs(np.diff(lattice, axis=k, prepend=0.0, append=0.0)).sum() for k in range(dimension)]
    return bool(max(changes) / 2 <= _SHARPEST)


def _ends(potential: Potential, temperature: float) -> list[tuple[float, float]]:
    """Of each coordinate on flat blocks, where the Gibbs law lives."""
    space = potential.space
    if not any(block.flat for block in space.domain):
        return []
    if not all(block.flat for block in space.domain):
        raise ValueError(f"quadrature needs a Euclidean or a bounded space, got the product {space.domain}")
    return box(potential, temperature, [None] * space.n_coordinates)


def _gibbs(
    game: Game,
    faced: Faced,
    temperatures: Mapping[str, float],
    ends: Mapping[str, list[list[tuple[float, float]]]],
    coarser: int,
) -> tuple[dict[str, Cloud], dict[str, list[float]]]:
    """Best responses to what players face, and the logarithms of their normalisers."""
    hats: dict[str, Cloud] = {}
    normalisers: dict[str, list[float]] = {}
    for name, potentials in faced.items():
        nodes, densities, normalisers[name] = [], [], []
        for (_, potential), own_ends in zip(potentials, ends[name], strict=True):
            points, weights = _nodes(potential.space, own_ends, coarser)
            exponents = np.asarray(potential(points), np.float64) / -temperatures[name]
            nodes.append(points)
            densities.append(weights * np.exp(exponents - exponents.max()))
            normalisers[name].append(float(exponents.max()) + math.log(float(densities[-1].sum())))
        hats[name] = _together(game, name, nodes, densities)
    return hats, normalisers


def _together(game: Game, name: str, points: list[Vector], weights: list[Vector] | None = None) -> Cloud:
    """Cloud of a player from the points of its members."""
    members = tuple(game.members.get(name, ()))
    stacked = np.stack(points).reshape(*members, *points[0].shape)
    return Cloud(stacked, None if weights is None else np.stack(weights).reshape(stacked.shape[:-1]))


def _nodes(space: Space, ends: list[tuple[float, float]], coarser: int) -> tuple[Vector, Vector]:
    """Points of a product rule, and weights."""
    n = _NODES[_dimension(space)] // coarser
    rules: list[tuple[Vector, Vector]] = []
    for block, part in space.parts():
        if block.flat:
            rules += [_line(*ends[c], n) for c in range(part.start, part.stop)]
        elif block.limits is not None and block.kind == "torus":
            rules += [((np.arange(n) / n * b)[:, np.newaxis], np.full(n, b / n)) for b in block.limits[1]]
        elif block.limits is not None:
            rules += [_legendre(a, b, n) for a, b in zip(*block.limits, strict=True)]
        else:
            rules.append(_sphere(block.n_coordinates, n))
    points, weights = rules[0]
    for more, own in rules[1:]:
        points = np.concatenate([np.repeat(points, len(more), axis=0), np.tile(more, (len(points), 1))], axis=1)
        weights = np.repeat(weights, len(own)) * np.tile(own, len(weights))
    return points, weights


def _line(low: float, high: float, n: int) -> tuple[Vector, Vector]:
    # The trapezoidal rule: where a density vanishes at both ends all its digits are right.
    return np.linspace(low, high, n)[:, np.newaxis], np.full(n, (high - low) / (n - 1))


def _legendre(low: float, high: float, n: int) -> tuple[Vector, Vector]:
    x, w = np.polynomial.legendre.leggauss(min(n, 200))
    return (low + (high - low) * (x + 1) / 2)[:, np.newaxis], w * (high - low) / 2


def _sphere(n_coordinates: int, n: int) -> tuple[Vector, Vector]:
    angles = 2 * np.pi * np.arange(n) / n
    circle, arc = np.stack([np.cos(angles), np.sin(angles)], axis=1), np.full(n, 2 * np.pi / n)
    if n_coordinates == 2:
        return circle, arc
    heights, w = _legendre(-1.0, 1.0, n)  # areas between parallels are as their distances
    radii = np.sqrt(1 - heights**2)
    points = np.concatenate([np.repeat(radii, n, axis=0) * np.tile(circle, (n, 1)), np.repeat(heights, n, axis=0)], 1)
    return points, np.repeat(w, n) * np.tile(arc, n)


# ---- chains ----------------------------------------------------------------------------------------------------------


def _by_chains(
    game: Game,
    clouds: Mapping[str, Cloud],
    faced: Faced,
    temperatures: Mapping[str, float],
    confidence: float,
    n_chains: int,
    most_moves: int,
    seed: int,
    num_threads: int | None,
) -> EquilibriumGap:
    points: dict[str, list[Vector]] = {}
    mixed, number, largest = True, 0, 0.0
    for name, potentials in faced.items():
        points[name] = []
        for (_, potential), cloud in zip(potentials, clouds[name].each(), strict=True):
            key, population = noise.key(seed, number), noise.POPULATIONS["certificate"]
            sampler = GibbsSampler(potential, temperatures[name], key, population, num_threads)
            number += 1
            particles = cloud.particles.astype(np.float64)
            chains = sampler.start(particles[np.arange(n_chains) * len(particles) // n_chains])
            for _ in range(_ROUNDS):
                before = chains.moves
                chains = sampler.move_until_forgotten(
                    chains, lambda now: np.concatenate([now.points, now.points**2], axis=1), most_moves // _ROUNDS
                )
                mixed = mixed and chains.moves - before < most_moves // _ROUNDS
            # Chains that start at equal particles have to be dealt out over the groups.
            own = chains.points.reshape(-1, _GROUPS, chains.points.shape[1]).transpose(1, 0, 2)
            points[name].append(np.ascontiguousarray(own))
    hats = {name: _together(game, name, [own.reshape(n_chains, -1) for own in each]) for name, each in points.items()}
    groups = [
        {name: _together(game, name, [own[g] for own in each]) for name, each in points.items()} for g in range(_GROUPS)
    ]
    even = np.full(n_chains, 1 / n_chains)
    gains, exponential, logarithm, few = {}, np.zeros(_GROUPS), 0.0, False
    for name, temperature in temperatures.items():
        gains[name] = 0.0
        everywhere = _potentials(game, name, hats)
        of_groups = [_potentials(game, name, group) for group in groups]
        for e, ((atom, potential), own) in enumerate(zip(faced[name], points[name], strict=True)):
            flat = own.reshape(n_chains, -1)
            frozen = np.asarray(potential(flat), np.float64)
            largest = max(largest, float(np.abs(frozen).max()) / temperature)
            gains[name] += atom * _gain((everywhere[e][1](flat) - frozen) / temperature, even, temperature)
            there = np.stack([np.asarray(of_groups[g][e][1](own[g]), np.float64) for g in range(_GROUPS)])
            difference = (there - frozen.reshape(_GROUPS, -1)) / temperature
            lowest = float(difference.min())
            terms = np.exp(lowest - difference)
            mean = terms.mean(axis=1)
            few = few or float(terms.sum() ** 2 / (terms**2).sum()) < _FEWEST
            logarithm += atom * temperature * (math.log(float(mean.mean())) - lowest)
            # Per group, what the bound is to first order.
            exponential += atom * temperature * (difference.mean(axis=1) + mean / mean.mean() - 1)
    linear = float(exponential.mean())
    error = float(exponential.std(ddof=1)) / math.sqrt(_GROUPS)
    gap = sum(gains.values())
    upper = max(gap, linear + logarithm + student_quantile(confidence, _GROUPS - 1) * error)
    reason = None
    if largest > _LARGEST_EXPONENT:
        reason = f"potentials of {largest:.1e} temperatures are beyond rounding"
    elif not mixed:
        reason = f"the chains have not forgotten their start after {most_moves} moves"
    elif few:
        reason = (
            "n_chains must be larger: a handful of points carry the average of an exponential, far from equilibrium"
        )
    return EquilibriumGap(gap, upper if reason is None else math.inf, gains, "chains", hats, reason)
