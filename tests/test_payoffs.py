"""Payoffs: averages over weighted clouds against sums of formulas, gradients against finite differences."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mfld
from mfld import payoffs

TORUS = mfld.Space(domain=[mfld.Torus(1)])
# Each payoff, with the plain formula that it stands for.
PAYOFFS = {
    "polynomial": (
        payoffs.Polynomial({(2, 0, 1): 0.5, (1, 3, 0): -1.0, (0, 0, 2): 2.0, (0, 0, 0): 3.0}, n_coordinates=(2, 1)),
        lambda x, y: 0.5 * x[0] ** 2 * y[0] - x[0] * x[1] ** 3 + 2 * y[0] ** 2 + 3,
    ),
    "trigonometric": (
        payoffs.Trigonometric({(1, 2, 0): 0.5, (2, 0, -1): -1j, (0, 1, 1): 1 + 2j}, n_coordinates=(1, 2), period=2.0),
        lambda x, y: (
            0.5 * math.cos(math.pi * (x[0] + 2 * y[0]))
            + math.sin(math.pi * (2 * x[0] - y[1]))
            + math.cos(math.pi * (y[0] + y[1]))
            - 2 * math.sin(math.pi * (y[0] + y[1]))
        ),
    ),
    "function": (
        payoffs.Function(
            lambda x, y: x[..., 0] * np.sum(y**2, axis=-1),
            lambda x, y: np.sum(y**2, axis=-1)[..., np.newaxis] + 0 * x,
            lambda x, y: 2 * x[..., :1] * y,
        ),
        lambda x, y: x[0] * (y[0] ** 2 + y[1] ** 2),
    ),
    "kernel": (
        payoffs.OfKernel(mfld.kernels.Gaussian(0.7), factor=-2.0),
        lambda x, y: -2 * math.exp(-sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / (2 * 0.49)),
    ),
}
SIZES = {"polynomial": (2, 1), "trigonometric": (1, 2), "function": (1, 2), "kernel": (2, 2)}
SIZES |= dict.fromkeys(("jax", "torch"), (1, 2))


def differentiated(library):
    """The function of the table above, with gradients by a library, where that is installed."""
    if library == "jax":
        pytest.importorskip("jax")
        return payoffs.Function.from_jax(lambda x, y: x[..., 0] * (y**2).sum(axis=-1))
    pytest.importorskip("torch")
    return payoffs.Function.from_torch(lambda x, y: x[..., 0] * (y**2).sum(dim=-1))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", [*PAYOFFS, "jax", "torch"])
@pytest.mark.parametrize("player", [0, 1])
def test_averages_are_those_of_the_formula(name, player, weighted, rng):
    payoff, formula = PAYOFFS[name] if name in PAYOFFS else (differentiated(name), PAYOFFS["function"][1])
    points = rng.normal(size=(5, SIZES[name][player]))
    others = rng.normal(size=(7, SIZES[name][1 - player]))
    weights = rng.uniform(size=7) if weighted else np.ones(7)

    def average(x):
        terms = [formula(x, y) if player == 0 else formula(y, x) for y in others]
        return sum(w * term for w, term in zip(weights / weights.sum(), terms, strict=True))

    values, gradient = payoff.average(points, mfld.Cloud(others, weights if weighted else None), player)
    assert_allclose(values, [average(x) for x in points], rtol=1e-12, atol=1e-12)
    h = 1e-5
    differences = [[(average(x + h * e) - average(x - h * e)) / (2 * h) for e in np.eye(len(x))] for x in points]
    assert_allclose(gradient, differences, rtol=1e-7, atol=1e-7)  # truncation h**2, rounding eps / h
    opposite, slopes = payoffs.Opposite(payoff).average(points, mfld.Cloud(others, weights), 1 - player)
    assert_allclose(opposite, [-average(x) for x in points], rtol=1e-12, atol=1e-12)
    assert_allclose(slopes, -np.array(differences), rtol=1e-7, atol=1e-7)
    single = payoff.average(points.astype(np.float32), mfld.Cloud(others.astype(np.float32)), player)
    assert [part.dtype for part in single] == [np.float32, np.float32]


@pytest.mark.parametrize("name", ["function", "jax", "torch"])
def test_pairs_are_summed_in_blocks(name, monkeypatch, rng):
    payoff = PAYOFFS[name][0] if name in PAYOFFS else differentiated(name)
    points, others = rng.normal(size=(9, 1)), mfld.Cloud(rng.normal(size=(4, 2)))
    whole = payoff.average(points, others, 0)
    monkeypatch.setattr(payoffs, "_BLOCK", 16)
    for one, other in zip(whole, payoff.average(points, others, 0), strict=True):
        assert_allclose(one, other, rtol=1e-14)


@pytest.mark.parametrize("library", ["jax", "torch"])
def test_games_run_on_payoffs_of_other_libraries(library):
    start = {name: np.random.default_rng(k).normal(size=(20, 1)) for k, name in enumerate("xy")}
    if library == "jax":
        jnp = pytest.importorskip("jax.numpy")
        payoff = payoffs.Function.from_jax(lambda x, y: jnp.tanh(x * y).sum(axis=-1))
    else:
        torch = pytest.importorskip("torch")
        payoff = payoffs.Function.from_torch(lambda x, y: torch.tanh(x * y).sum(dim=-1))
    plain = payoffs.Function(
        lambda x, y: np.tanh(x * y).sum(axis=-1),
        lambda x, y: y / np.cosh(x * y) ** 2,
        lambda x, y: x / np.cosh(x * y) ** 2,
    )
    solver = mfld.DescentAscent(20, step_size=0.1, temperature=0.1, dtype="float64")
    one, other = (solver.run(mfld.Bilinear(own, space=1, l2=0.1), 30, particles=start).state for own in (payoff, plain))
    for name in "xy":
        assert_allclose(one.clouds[name].particles, other.clouds[name].particles, rtol=1e-10, atol=1e-12)
    wrong = payoffs.Function.from_jax if library == "jax" else payoffs.Function.from_torch
    with pytest.raises(ValueError, match="the result of value must have shape"):
        wrong(lambda x, y: x.sum()).average(start["x"], mfld.Cloud(start["y"]), 0)


class Wrong(payoffs.Payoff):
    """Payoff whose averages have axes too many or too few."""

    def __init__(self, more, axes):
        self.more, self.axes = more, axes

    def average(self, points, measure, player, num_threads=None):
        return np.zeros((len(points),) + (1,) * self.more), np.zeros(points.shape[: self.axes])


def run_of(payoff):
    return mfld.DescentAscent(4, step_size=0.1, temperature=0.1).run(mfld.Bilinear(payoff, space=2, l2=0.1), 1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: payoffs.Polynomial({(1, 1, 1): 1.0}), ValueError, r"terms must have tuples of 2 integers"),
        (lambda: payoffs.Polynomial({}), ValueError, "terms must hold at least one term"),
        (lambda: payoffs.Polynomial({(1, -1): 1.0}), ValueError, "terms must be at least 0, got -1"),
        (lambda: payoffs.Polynomial({(1, 1): 1j}), TypeError, "terms must be a real number"),
        (lambda: payoffs.Trigonometric({(1, 1): complex("nan")}), ValueError, "terms must have finite"),
        (lambda: payoffs.Trigonometric({(1, 1): 1.0}, period=0.0), ValueError, "period must be finite and positive"),
        (lambda: payoffs.OfKernel(3), TypeError, "kernel must be a Kernel"),
        (lambda: payoffs.Function(1, abs, abs), TypeError, "value must be"),
        (
            lambda: mfld.Bilinear(payoffs.Polynomial({(1, 1): 1.0}), space=2),
            ValueError,
            "space of x must have 1 coordinates, got 2",
        ),
        (
            lambda: mfld.Bilinear(payoffs.Polynomial({(1, 1): 1.0}), space=TORUS),
            ValueError,
            "payoff must have the periods of",
        ),
        (
            lambda: mfld.Bilinear(mfld.kernels.Gaussian(1.0), space={"x": 1, "y": 2}),
            ValueError,
            "space of y must have the 1 coordinates of x",
        ),
        (lambda: run_of(Wrong(1, 2)), ValueError, r"the values of a payoff's average must have shape \(4,\)"),
        (lambda: run_of(Wrong(0, 1)), ValueError, r"the gradients of a payoff's average must have shape \(4, 2\)"),
        (lambda: mfld.Bilinear(abs, space=1), TypeError, "payoff must be a Payoff or a Kernel"),
        (lambda: mfld.Bilinear(mfld.kernels.Gaussian(1.0), space=1.5), TypeError, "space must be a Space or a number"),
        (
            lambda: mfld.Bilinear(mfld.kernels.Gaussian(1.0), space=1, l2={"x": 1.0}),
            ValueError,
            "l2 must be one for all players, or have each of x, y",
        ),
        (
            lambda: mfld.PairwiseGame({("a", "a"): mfld.kernels.Gaussian(1.0)}, space=1),
            ValueError,
            "payoffs must be of two different players",
        ),
        (
            lambda: mfld.Bilinear(
                payoffs.Function(lambda x, y: np.ones(3), lambda x, y: x, lambda x, y: y), space=1
            ).facing("x", {"y": mfld.Cloud([[1.0]])})([[1.0]]),
            ValueError,
            "the result of value must have shape",
        ),
    ],
)
def test_misuse_has_its_message(call, error, message):
    with pytest.raises(error, match=message):
        call()
