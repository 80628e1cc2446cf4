"""Kernel thinning, against a plain copy of its rule, brute-force discrepancies and goodpoints."""

import numpy as np
import pytest

import mfld
from mfld import kernels, noise, thinning
from mfld._core import backend

KERNELS = [
    kernels.Gaussian(0.8),
    kernels.Gaussian((0.5, 2.0)),
    kernels.InverseMultiquadric(1.0),
    kernels.InverseMultiquadric(1.0, -0.8),
    kernels.Matern52(1.0),
    kernels.Matern32(1.0),
    kernels.Laplace(1.0),
    kernels.Energy(),
    kernels.Dirichlet([0.5, 0.25], period=8.0),
    kernels.WrappedGaussian(0.8, period=8.0),
]


def clumps(n, p=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, p)) * 0.5 + rng.choice([-2.0, 0.0, 1.5], size=(n, 1))


def discrepancy(kernel, points, rows):
    """The squared discrepancy of some rows from all, by sums over all pairs."""
    points = points.astype(np.float64)
    few = points[rows]
    between, own, all_ = (kernel.sums(*pair).mean() for pair in ((few, points), (few, few), (points, points)))
    return own - 2 * between + all_


def halved(kernel, points, rows, level, seed):
    """The two halves by the rule itself, a pair after the other."""
    uniforms = noise.Place.of(seed).uniforms(len(points), 2 * level + 1, stream="thinning")[:, 2 * level]
    matrix = kernel.matrix(points)
    psi, halves = np.zeros(len(points)), [[], []]
    for x, other in zip(rows[::2], rows[1::2], strict=False):
        square = matrix[x, x] + matrix[other, other] - 2 * matrix[x, other]
        share = 0.5 * (1 - (psi[x] - psi[other]) / square)
        first, second = (x, other) if uniforms[x] < share else (other, x)
        psi += matrix[first] - matrix[second]
        halves[0].append(first)
        halves[1].append(second)
    if len(rows) % 2:
        halves[int(psi[rows[-1]] > 0)].append(rows[-1])
    return halves


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
@pytest.mark.parametrize("n", [2, 64, 135])
def test_splits_follow_the_rule(kernel, n):
    points = clumps(n)
    parts = thinning.split(points, 1, kernel, seed=3)
    assert [part.tolist() for part in parts] == halved(kernel, points, list(range(n)), 0, 3)


def test_splits_of_splits_follow_the_rule():
    points, kernel = clumps(101), kernels.Gaussian(1.0)
    expected = [
        part for half in halved(kernel, points, list(range(101)), 0, 5) for part in halved(kernel, points, half, 1, 5)
    ]
    assert [part.tolist() for part in thinning.split(points, 2, kernel, seed=5)] == expected


@pytest.mark.parametrize("n", [1, 2, 7, 100, 513])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parts_are_disjoint_and_cover_all(n, dtype):
    points = clumps(n).astype(dtype)
    for halvings in range(n.bit_length()):
        parts = thinning.split(points, halvings, kernels.Gaussian(1.0))
        sizes = [len(part) for part in parts]
        assert len(parts) == 2**halvings
        assert max(sizes) - min(sizes) <= 1
        assert sorted(np.concatenate(parts).tolist()) == list(range(n))


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_exchanges_never_make_it_worse(kernel):
    points = clumps(200)
    native = kernel.native(2).kernel
    rows, ends = backend.thinning_split(native, points, np.arange(200), 3, 0, noise.key(1), 0)
    parts = [discrepancy(kernel, points, part) for part in np.split(rows, ends[:-1])]
    found = []
    for n_sweeps in range(4):
        chosen = backend.thinning_refine(native, points, rows, ends, n_sweeps)
        assert len(set(chosen.tolist())) == 25
        found.append(discrepancy(kernel, points, chosen))
    assert found[0] == pytest.approx(min(parts), abs=1e-12)
    assert (np.diff(found) <= 1e-12).all()
    assert found[3] < 0.7 * found[0]


@pytest.mark.parametrize("n", [1, 2, 3, 10, 500, 4095, 4096, 5000, 16384])
def test_coresets_have_the_size_of_the_root_and_distinct_rows(n):
    rows = thinning.thin(clumps(n).astype("float32"), kernel=kernels.Gaussian(1.0))
    assert len(set(rows.tolist())) == len(rows)
    assert 0 <= rows.min() <= rows.max() < n
    # Rounding down takes one point at most.
    assert np.sqrt(n / 2) - 1 <= len(rows) <= np.sqrt(2 * n)
    if n in (4096, 16384):
        assert len(rows) == round(n**0.5)


@pytest.mark.parametrize("size", [1, 10, 60, 500])
def test_sizes_are_those_of_halvings(size):
    rows = thinning.thin(clumps(500), size, kernels.Gaussian(1.0))
    assert size / 2**0.5 - 1 <= len(rows) <= size * 2**0.5 + 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [900, 6000])
def test_threads_never_change_a_row(n, dtype):
    points = clumps(n).astype(dtype)
    alone = thinning.thin(points, seed=2, num_threads=1)
    for threads in (2, 3, 7):
        assert thinning.thin(points, seed=2, num_threads=threads).tolist() == alone.tolist()
    assert thinning.thin(points, seed=3, num_threads=1).tolist() != alone.tolist()


def test_threads_that_share_a_halving_never_change_a_part():
    points = clumps(12000).astype("float32")
    alone, shared = (thinning.split(points, 1, kernels.Gaussian(1.0), num_threads=threads) for threads in (1, 3))
    assert alone[0].tolist() == shared[0].tolist()


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_coresets_are_closer_than_random_subsets(kernel):
    points = clumps(500)
    rows = thinning.thin(points, 22, kernel)
    rng = np.random.default_rng(0)
    random = [discrepancy(kernel, points, rng.choice(500, len(rows), replace=False)) for _ in range(10)]
    assert discrepancy(kernel, points, rows) < 0.3 * np.mean(random)


def test_neither_half_is_preferred():
    # A row is in the first half with probability 1/2, whatever the others are.
    points = clumps(8)
    first = np.mean([np.isin(np.arange(8), thinning.split(points, 1, seed=seed)[0]) for seed in range(400)], axis=0)
    assert np.abs(first - 0.5).max() < 4.5 * 0.5 / 20


def test_against_goodpoints():
    kt = pytest.importorskip("goodpoints.kt")
    kernel = kernels.Gaussian(1.0)

    def theirs(y, x):
        return np.exp(-np.sum((x - y) ** 2, axis=1) / 2)

    own, peer, random = [], [], []
    for seed in range(20):
        points = clumps(256, seed=seed)
        own.append(discrepancy(kernel, points, thinning.thin(points, 16, kernel, seed=seed)))
        peer.append(discrepancy(kernel, points, kt.thin(points, 4, theirs, theirs, seed=seed, store_K=True)))
        drawn = np.random.default_rng(seed).choice(256, 16, replace=False)
        random.append(discrepancy(kernel, points, drawn))
    own, peer, random = (np.sqrt(each) for each in (own, peer, random))
    assert own.mean() <= 1.1 * peer.mean()
    assert (own < random).all()


def test_compression_against_goodpoints():
    peers = pytest.importorskip("goodpoints.compress")
    kernel = kernels.Gaussian(1.0)
    own, peer, random = [], [], []
    for seed in range(4):
        points = clumps(4096, seed=seed)
        theirs = peers.compresspp_kt(points, b"gaussian", np.array([2.0]), g=4, seed=seed)
        own.append(discrepancy(kernel, points, thinning.thin(points, 64, kernel, seed=seed)))
        peer.append(discrepancy(kernel, points, theirs))
        random.append(discrepancy(kernel, points, np.arange(64)))
    assert np.sqrt(own).mean() <= 1.1 * np.sqrt(peer).mean()
    assert max(own) < min(random)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"points": np.zeros(3)}, ValueError, "points must have shape"),
        ({"points": np.zeros((0, 2))}, ValueError, "points must have shape"),
        ({"points": np.zeros((5, 2))}, ValueError, "length_scale must be a number where the median distance"),
        ({"size": 6}, ValueError, "size must be"),
        ({"kernel": 3}, TypeError, "kernel must be a Kernel"),
        ({"kernel": kernels.Gaussian(1.0) + kernels.Gaussian(2.0)}, ValueError, "kernel must be one that the core"),
        ({"kernel": kernels.Gaussian((1.0, 1.0, 1.0))}, ValueError, "kernel must be of 2 coordinates"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        mfld.thinning.thin(**{"points": clumps(5), **arguments})


def test_identical_points_are_thinned_with_a_kernel_that_is_given():
    assert len(set(thinning.thin(np.zeros((64, 2)), kernel=kernels.Gaussian(1.0)).tolist())) == 8
