"""Annealed particles: partition functions from both sides, and unbiased ones, against quadrature and closed forms."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.spatial
from numpy.testing import assert_allclose, assert_array_equal

import mfld
from mfld import wells
from mfld.annealing import Annealer
from mfld.gibbs import GibbsEstimate
from mfld.noise import Place


def both_sides(potential, temperature, seed=0, groups=32, cell=16, n_moves=4, kept=0.9, stay=40):
    """log Z on the way down and back, each by groups, and the particles in between."""
    place = Place.of(seed, num_threads=1).beside("certificate")
    annealer = Annealer(potential, temperature, cell, place)
    frozen = np.zeros((groups * cell, potential.n_coordinates))
    ladder, moves = annealer.ladder(frozen, n_moves, kept, 10_000)
    now = annealer.down(annealer.begin(frozen, ladder, moves), ladder)
    first = annealer.log_normaliser(ladder)
    down = now.log_ratio
    for k in range(stay):
        now = annealer.moved(now, ladder.rungs[-1], k)
    back = annealer.back(now, ladder).log_ratio
    # Masses of the groups weigh the way back, which begins at their particles.
    weights = np.exp(down - down.max())
    return first + down, first - back, weights / weights.sum(), now


def check(potential, temperature, exact, overestimated=0.0, **options):
    """The way down is right within its error; the way back too, or it overestimates log Z, as it may by so much."""
    down, back, weights, now = both_sides(potential, temperature, **options)
    for values, mass, sign, most in (
        (down, np.full(len(down), 1 / len(down)), 1, 0.0),
        (back, weights, -1, overestimated),
    ):
        ratio = np.exp(sign * (values - exact))  # of mean 1
        mean = mass @ ratio
        error = math.sqrt(np.sum((mass * (ratio - mean)) ** 2))
        assert math.exp(-most) - 5 * error < mean < 1 + 5 * error < 2
    return now


WIDTHS = (0.4, 0.5)


def mixture(dimension, l2, separation):
    """Two Gaussians, of which V is minus the logarithm, and log of the integral of exp(-(V + l2 |x|**2))."""
    means = [np.zeros(dimension), np.zeros(dimension)]
    means[0][0], means[1][0] = separation, -separation
    shares = (0.3, 0.7)

    def parts(x):
        return np.stack(
            [
                math.log(share) - np.sum((x - mean) ** 2, axis=1) / (2 * s**2) - dimension * math.log(s)
                for share, mean, s in zip(shares, means, WIDTHS, strict=True)
            ]
        )

    def value(x):
        return -np.logaddexp(*parts(x.astype(np.float64)))

    def gradient(x):
        terms = parts(x.astype(np.float64))
        weights = np.exp(terms - np.logaddexp(*terms))
        return sum(w[:, np.newaxis] * (x - mean) / s**2 for w, mean, s in zip(weights, means, WIDTHS, strict=True))

    # The integral of exp(-|x - m|^2 / (2 s^2) - l2 |x|^2), coordinate by coordinate.
    masses = [
        share
        / s**dimension
        * (math.pi / (1 / (2 * s**2) + l2)) ** (dimension / 2)
        * math.exp(-(separation**2) * l2 / (1 + 2 * l2 * s**2))
        for share, s in zip(shares, WIDTHS, strict=True)
    ]
    return mfld.Potential(gradient, value, n_coordinates=dimension, l2=l2), math.log(sum(masses)), masses


@pytest.mark.parametrize("dimension", [1, 2, 10])
def test_partition_function_of_a_mixture(dimension):
    potential, exact, masses = mixture(dimension, 0.2, 1.5)
    now = check(
        potential,
        1.0,
        exact,
        overestimated=0.7 if dimension == 10 else 0.0,
        groups=64 if dimension < 10 else 32,
        cell=16 if dimension < 10 else 64,
    )
    if dimension == 1:
        share = masses[0] / sum(masses)
        assert abs(np.mean(now.points[:, 0] > 0) - share) < 0.15


@pytest.mark.parametrize("dimension", [1, 10])
def test_partition_function_of_a_gaussian(dimension):
    # V = |x - 1|^2 at temperature 0.1 and l2 0.5.
    well = mfld.Potential(
        lambda x: 2 * (x - 1), lambda x: np.sum((x - 1) ** 2, axis=1), n_coordinates=dimension, l2=0.5
    )
    exact = dimension * (0.5 * math.log(math.pi * 0.1 / 1.5) - (1 - 1 / 1.5) / 0.1)
    check(well, 0.1, exact, cell=16 if dimension == 1 else 64)


@pytest.mark.parametrize(("dimension", "temperature"), [(1, 0.02), (2, 0.05)])
def test_partition_function_of_many_wells_by_quadrature(dimension, temperature):
    wells = mfld.Potential(
        lambda x: 3 * np.cos(3 * x + 0.5),
        lambda x: np.sum(np.sin(3 * x + 0.5), axis=1),
        n_coordinates=dimension,
        l2=0.03,
    )
    x = np.linspace(-20, 20, 200_001)
    exponent = -(np.sin(3 * x + 0.5) + 0.03 * x**2) / temperature
    one = exponent.max() + math.log(np.exp(exponent - exponent.max()).sum() * (x[1] - x[0]))
    check(wells, temperature, dimension * one, overestimated=1.5)


def test_few_particles_have_no_bias():
    # Cells of 4: the mean of exp(log ratio) is right, and that of its logarithm is far below.
    potential, exact, _ = mixture(2, 0.2, 1.5)
    down, _, _, _ = both_sides(potential, 1.0, groups=3000, cell=4, n_moves=1, kept=0.5, stay=0)
    ratio = np.exp(down - exact)
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / math.sqrt(len(ratio)) < 0.3
    assert down.mean() < exact - 0.1


def test_hops_keep_the_law():
    potential, _, masses = mixture(1, 0.2, 1.5)
    place = Place.of(3, num_threads=1)
    annealer = Annealer(potential, 1.0, 4000, place)
    rng = np.random.default_rng(0)
    s = np.array([math.sqrt(1 / (1 / w**2 + 0.4)) for w in WIDTHS])
    which = rng.choice(2, p=np.array(masses) / sum(masses), size=4000)
    centre = np.array([1.5, -1.5]) / (1 + 0.4 * np.array(WIDTHS) ** 2)
    points = (centre[which] + s[which] * rng.normal(size=4000))[:, np.newaxis]
    ladder, _ = annealer.ladder(np.zeros((4000, 1)), 2, 0.8, 10_000)
    rung = ladder.rungs[-1]
    assert rung.hop > 0.5
    now = annealer.begin(np.zeros((4000, 1)), ladder, 0)
    values, gradient = potential.value_and_gradient(points)
    now = type(now)(points, values, gradient, now.log_weights, now.log_ratio, 0)
    after, accepted = annealer._hop(now, rung)
    assert accepted > 0.1
    crossed = np.sum((points > 0) & (after.points < 0)), np.sum((points < 0) & (after.points > 0))
    assert min(crossed) > 50
    assert abs(crossed[0] - crossed[1]) < 5 * math.sqrt(sum(crossed))
    fresh = potential.value_and_gradient(after.points)
    assert_array_equal(after.values, fresh[0])
    assert_array_equal(after.gradient, fresh[1])


# ---- wells -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize("n", [1024, 16384])
def test_points_cover_a_ball(dimension, n, rng):
    points = wells._covering(dimension, np.zeros(dimension), 7.0, n, Place.of(n, num_threads=1), evenly=True)
    assert points.shape == (n, dimension)
    anywhere = rng.uniform(-6, 6, size=(20_000, dimension))
    distances, _ = scipy.spatial.cKDTree(points).query(anywhere)
    # Their spacing were they on a square lattice, whose farthest points are within sqrt(dimension) / 2 of it.
    assert distances.max() < 0.95 * 14 / n ** (1 / dimension)


def test_a_mass_that_is_hardly_known_counts_by_a_thousandth():
    one = wells.Wells(
        np.zeros((1, 1)), np.ones((1, 1, 1)), np.zeros(1), np.zeros(1), np.zeros((1, 1, 1)), np.ones((1, 1)), 0
    )
    found = GibbsEstimate(mass=np.full((32, 1), 1.0), inside=[np.full((32, 1), 0.5)], rounds=1)

    def missed(log_mass, error):
        (share,) = found.missed([replace(one, log_mass=np.array([log_mass]), error=np.array([error]))])
        return share[0]

    # Particles have half of the mass there, which is 1 in all.
    assert missed(math.log(0.5), 0.01) == 0
    assert_allclose(missed(math.log(0.8), 0.01), 0.3)
    assert missed(math.log(100.0), 0.7) == 0
    assert_allclose(missed(math.log(1e5), 0.7), 99.5)


@pytest.mark.parametrize(("dimension", "temperature"), [(1, 0.02), (2, 0.05)])
def test_masses_of_wells_by_quadrature(dimension, temperature):
    # sin(3 x + 0.5) in each coordinate and a ridge: some wells within reach.
    def value(x):
        return np.sum(np.sin(3 * x + 0.5), axis=1)

    several = mfld.Potential(lambda x: 3 * np.cos(3 * x + 0.5), value, n_coordinates=dimension, l2=0.03)
    found = wells.find(several, temperature, np.zeros(dimension), 8.0, 4096, Place.of(1, num_threads=1))
    axis = np.linspace(-9, 9, 180_001 if dimension == 1 else 501)
    grid = np.stack([part.ravel() for part in np.meshgrid(*[axis] * dimension)], axis=1)
    density = np.exp(-(value(grid) + 0.03 * np.sum(grid**2, axis=1)) / temperature - 40 * dimension)
    exact = np.array([density[found.region(grid) == k].sum() for k in range(len(found.log_mass))])
    exact = np.log(exact * (axis[1] - axis[0]) ** dimension) + 40 * dimension
    assert np.all(np.abs(found.log_mass - exact) < 5 * found.error + (0.01 if dimension == 2 else 1e-3))
    assert np.all(found.error[:2] < 0.1)
    # Regions are apart from each other, and together they have nearly all the mass.
    assert np.exp(exact).sum() > 0.95 * density.sum() * (axis[1] - axis[0]) ** dimension * np.exp(40 * dimension)
    centres = found.centres[np.argsort(np.abs(found.centres[:, 0]))]
    assert_allclose(np.abs(np.cos(3 * centres + 0.5)), 0, atol=0.1)
    inside = found.points[0][found.weights[0] > 0]
    assert np.all(found.region(inside) == 0)
    assert_allclose(found.weights.sum(axis=1), 1)


def test_a_narrow_well_in_ten_coordinates_is_found_where_a_slope_leads_to_it():
    centre = np.full(10, 0.5)
    cone = mfld.Potential(
        lambda x: (x - centre) / np.sqrt(0.01 + np.sum((x - centre) ** 2, axis=1, keepdims=True)),
        lambda x: np.sqrt(0.01 + np.sum((x - centre) ** 2, axis=1)),
        n_coordinates=10,
        l2=0.01,
    )
    found = wells.find(cone, 1e-3, np.zeros(10), 3.0, 1024, Place.of(0, num_threads=1), evenly=False)
    assert len(found.centres) == 1
    # Close to it V is 0.1 + |x - c|^2 / 0.2: a Gaussian, up to the cone's bend.
    l2, stiff = 0.01, 5.0
    bottom = stiff / (stiff + l2) * centre
    height = 0.1 + stiff * np.sum((bottom - centre) ** 2) + l2 * np.sum(bottom**2)
    gaussian = 5 * math.log(math.pi * 1e-3 / (stiff + l2)) - height / 1e-3
    assert_allclose(found.centres[0], bottom, atol=1e-3)
    assert abs(found.log_mass[0] - gaussian) < 0.4
