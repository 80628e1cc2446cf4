"""Games from data: margins of a support vector machine, robust risks in closed form, and both as users do."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import optimize

import mfld

LINEAR = mfld.TwoLayerNetwork(2, activation="identity", readout="fixed", bias=False)


def alone(state, name):
    return mfld.Cloud(state.clouds[name].particles[0])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("readout", mfld.readouts())
def test_gradients_in_inputs_are_differences(readout, bias, weighted, rng):
    outputs = 1 if readout == "fixed" else 2
    model = mfld.TwoLayerNetwork(3, outputs, readout=readout, bias=bias, output_scale=2.0, readout_bound=1.5)
    particles, inputs = rng.normal(size=(7, model.n_coordinates)), rng.normal(size=(4, 3))
    cotangent = rng.normal(size=(4, outputs))
    weights = rng.normal(size=7) if weighted else None
    found = model.pull_back_inputs(particles, weights, inputs, cotangent, 1)
    h = 1e-5
    for c in range(3):
        shift = h * np.eye(3)[c]
        above, below = (
            model.predictions(particles, weights, np.ascontiguousarray(inputs + sign * shift), 1) for sign in (1, -1)
        )
        assert_allclose(found[:, c], np.sum(cotangent * (above - below), axis=1) / (2 * h), rtol=1e-6, atol=1e-8)


def test_margins_of_linear_neurons_are_those_of_the_support_vector_machine():
    """Its dual by a solver of its own: max sum a - |sum a y x|**2 / (4 l2), 0 <= a <= largest / n."""
    rng = np.random.default_rng(3)
    targets = np.where(np.arange(20) % 2, 1.0, -1.0)
    inputs = rng.normal(size=(20, 2)) * 0.5 + targets[:, np.newaxis] * [1.0, 0.6]
    l2, largest = 0.1, 4.0
    signed = targets[:, np.newaxis] * inputs

    def negative_dual(a):
        return np.sum((a @ signed) ** 2) / (4 * l2) - a.sum(), signed @ (a @ signed) / (2 * l2) - 1

    best = optimize.minimize(
        negative_dual, np.full(20, 0.1), jac=True, bounds=[(0, largest / 20)] * 20, method="L-BFGS-B"
    )
    exact = best.x @ signed / (2 * l2)
    game = mfld.MaxMargin(LINEAR, inputs, targets, largest=largest, l2=l2)
    solver = mfld.DescentAscent(
        {"network": 500, "multipliers": 40}, step_size={"network": 0.05, "multipliers": 0.03}, temperature=1e-3
    )
    state = solver.run(game, 2500, seed=1).state
    mean = state.clouds["network"].particles[0].mean(axis=0, dtype=float)
    assert_allclose(mean, exact, atol=0.05 * np.linalg.norm(exact))
    assert_allclose(game.margins(alone(state, "network")), signed @ mean, atol=1e-4)
    multipliers = state.clouds["multipliers"].particles[0, :, :, 0].mean(axis=1)
    assert multipliers[signed @ exact > 1.3].max() < 0.1  # beyond the margin
    assert multipliers[signed @ exact < 0.7].min(initial=largest) > 0.9 * largest


def test_margin_game_is_certified():
    """One sample at 1: x is the mean of the multiplier on [0, 2] under exp(lambda (1 - x) / T)."""
    identity = mfld.TwoLayerNetwork(1, activation="identity", readout="fixed", bias=False)
    game = mfld.MaxMargin(identity, [[1.0]], [1.0], largest=2.0, l2=0.5)
    temperature = 0.3

    def mean(slack):
        c = 2 * slack / temperature
        return 2 * (1 / (1 - math.exp(-c)) - 1 / c) if abs(c) > 1e-6 else 1.0 + c / 6

    x = optimize.brentq(lambda x: x - mean(1 - x), -1, 3)
    grid = np.linspace(0, 2, 4001)[:, np.newaxis]
    law = np.exp(grid[:, 0] * (1 - x) / temperature)
    law[[0, -1]] /= 2
    clouds = {"network": mfld.Cloud([[x]]), "multipliers": mfld.Cloud(grid[np.newaxis], law[np.newaxis])}
    assert mfld.nikaido_isoda(game, clouds, temperature).upper < 1e-6
    state = mfld.DescentAscent(4000, step_size=0.05, temperature=temperature).run(game, 300, seed=2).state
    assert_allclose(alone(state, "network").particles.mean(), x, atol=0.05)
    found = mfld.nikaido_isoda(game, state, temperature)
    assert 0 <= found.gap <= found.upper < 1e-3
    far = {"network": mfld.Cloud([[x + 1.0]]), "multipliers": clouds["multipliers"]}
    assert mfld.nikaido_isoda(game, far, temperature).gap > 0.05


def test_robust_risk_of_a_linear_model_is_its_closed_form():
    """Half squared loss and a mean w: shifts are along w, and the worst loss is r**2 / 2 / (1 - |w|**2 / (2 cost))."""
    rng = np.random.default_rng(5)
    inputs, cost, l2 = rng.normal(size=(12, 2)), 1.5, 0.05
    targets = inputs @ [1.0, -0.5] + 1.5 * rng.normal(size=12)

    def worst(w):
        return np.mean((inputs @ w - targets) ** 2) / 2 / (1 - w @ w / (2 * cost)) + l2 * w @ w

    exact = optimize.minimize(worst, [0.1, 0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12}).x
    plain = np.linalg.solve(inputs.T @ inputs / 12 + 2 * l2 * np.eye(2), inputs.T @ targets / 12)
    assert np.linalg.norm(exact - plain) > 0.1  # so that the test tells them apart
    game = mfld.RobustRisk(LINEAR, inputs, targets, loss="half_squared", cost=cost, l2=l2)
    solver = mfld.DescentAscent(
        {"network": 300, "shifts": 60}, step_size={"network": 0.1, "shifts": 0.05}, temperature=1e-5
    )
    state = solver.run(game, 500, seed=1).state
    w = state.clouds["network"].particles[0].mean(axis=0, dtype=float)
    assert_allclose(w, exact, atol=0.02)
    shifts = state.clouds["shifts"].particles[0].mean(axis=1, dtype=float)
    residual = inputs @ exact - targets
    expected = residual[:, np.newaxis] * exact / (2 * cost - exact @ exact)
    assert_allclose(shifts, expected, atol=0.03)


def test_what_both_face_is_one_payoff_by_differences(rng):
    """The network's gradient, and the shifts' one with the other sign, of the one function of all particles."""
    model = mfld.TwoLayerNetwork(2)
    inputs, targets = rng.normal(size=(3, 2)), np.array([1.0, -1.0, 1.0])
    weights = np.array([0.5, 0.2, 0.3])
    game = mfld.RobustRisk(model, inputs, targets, loss="logistic", cost=0.7, l2=0.1, sample_weight=weights)
    clouds = {"network": rng.normal(size=(4, 4)), "shifts": rng.normal(size=(3, 5, 2))}

    def payoff(points):
        total = 0.1 * np.mean(np.sum(points["network"] ** 2, axis=1))
        for s, x, y, shifts in zip(weights, inputs, targets, points["shifts"], strict=True):
            f = model.predict(points["network"], x + shifts)
            total += s * np.mean(np.log1p(np.exp(-y * f)) - 0.7 * np.sum(shifts**2, axis=1))
        return total

    named = {name: mfld.Cloud(points) for name, points in clouds.items()}
    for name, place, mass, sign in (("network", (1, 3), 1 / 4, 1), ("shifts", (1, 2, 0), 0.2 / 5, -1)):
        h = 1e-5
        values = []
        for step in (h, -h):
            moved = {key: points.copy() for key, points in clouds.items()}
            moved[name][place] += step
            values.append(payoff(moved))
        slope = sign * (values[0] - values[1]) / (2 * h) / mass
        assert_allclose(game.facing(name, named).gradient(named[name])[place], slope, rtol=1e-6)
    whole = game.facing("network", named).value(named["network"]) + game.facing("shifts", named).ridge(named["shifts"])
    assert_allclose(
        game.facing("network", named).value(named["network"]),
        -game.facing("shifts", named).loss(named["shifts"]) + 0.1 * np.mean(np.sum(clouds["network"] ** 2, axis=1)),
        rtol=1e-6,
    )
    assert_allclose(payoff(clouds), whole - 2 * game.facing("shifts", named).ridge(named["shifts"]), rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mfld.MaxMargin(LINEAR, [[1.0, 0.0]], [0.5], largest=1.0, l2=0.1), ValueError, "targets of the loss"),
        (lambda: mfld.MaxMargin(LINEAR, [[1.0, 0.0]], [1.0], largest=0.0, l2=0.1), ValueError, "largest must be"),
        (lambda: mfld.MaxMargin(LINEAR, [[1.0, 0.0]], [1.0], largest=1.0, l2=0.0), ValueError, "l2 must be"),
        (
            lambda: mfld.MaxMargin(mfld.TwoLayerNetwork(2, 2), [[1.0, 0.0]], [[1.0, 1.0]], largest=1.0, l2=0.1),
            ValueError,
            "model must have one output, got 2",
        ),
        (
            lambda: mfld.RobustRisk(
                mfld.NeuronModel(lambda t, z: z @ t.T, lambda t, z: z[:, None] + 0 * t, n_features=1, n_coordinates=1),
                [[1.0]],
                [1.0],
                loss="squared",
                cost=1.0,
            ),
            TypeError,
            "model must define pull_back_inputs, like TwoLayerNetwork, got a NeuronModel",
        ),
    ],
)
def test_misuse_has_its_message(call, error, message):
    with pytest.raises(error, match=message):
        call()
