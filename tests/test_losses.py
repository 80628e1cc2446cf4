"""Losses: derivative, conjugate and smoothness against brute force on the values; targets and parameters."""

import itertools
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mfld

PARAMETERS = {"huber": [{}, {"delta": 0.3}], "smoothed_hinge": [{}, {"gamma": 0.25}]}
LOSSES = [mfld.Loss(name, **parameter) for name in mfld.losses() for parameter in PARAMETERS.get(name, [{}])]
NON_SMOOTH = {"absolute", "hinge"}
CURVATURE_JUMPS = {"huber", "smoothed_hinge"}
CLASSES = 3

every_loss = pytest.mark.parametrize("loss", LOSSES, ids=repr)


def n_outputs(loss):
    return CLASSES if loss.targets == "class" else 1


def targets_of(loss):
    return {"real": [-1.3, 0.0, 2.0], "sign": [-1.0, 1.0], "class": [0, 1, 2]}[loss.targets]


def value(loss, points, target):
    """Loss at points (n, outputs) for one target."""
    return loss.value(points if n_outputs(loss) > 1 else points[:, 0], np.full(len(points), target))


def derivative(loss, points, target):
    return loss.derivative(points if n_outputs(loss) > 1 else points[:, 0], np.full(len(points), target)).reshape(
        points.shape
    )


def samples(loss, n=200):
    return np.random.default_rng(3).uniform(-4, 4, size=(n, n_outputs(loss)))


def test_the_names_are_those_of_the_documentation():
    names = {"squared", "half_squared", "absolute", "huber", "logistic", "hinge", "smoothed_hinge", "cross_entropy"}
    assert set(mfld.losses()) == names
    assert all(f"``{name}``" in mfld.Loss.__doc__ for name in mfld.losses())


# One number per loss, worked out by hand: nothing else here would notice a factor of the value itself.
@pytest.mark.parametrize(
    ("name", "prediction", "target", "expected"),
    [
        ("squared", 3.0, 1.0, 4.0),
        ("half_squared", 3.0, 1.0, 2.0),
        ("absolute", 3.0, 5.0, 2.0),
        ("huber", 3.0, 1.0, 1.5),
        ("huber", 1.5, 1.0, 0.125),
        ("logistic", 0.0, -1.0, np.log(2)),
        ("logistic", -800.0, 1.0, 800.0),
        ("logistic", 800.0, 1.0, 0.0),
        ("hinge", 0.25, -1.0, 1.25),
        ("hinge", 2.0, 1.0, 0.0),
        ("smoothed_hinge", -1.0, 1.0, 1.5),
        ("smoothed_hinge", 0.5, 1.0, 0.125),
        ("smoothed_hinge", 2.0, 1.0, 0.0),
        ("cross_entropy", [np.log(2), 0.0, 0.0], 0, np.log(2)),
        ("cross_entropy", [0.0, 900.0, 0.0], 0, 900.0),
    ],
)
def test_values_by_hand(name, prediction, target, expected):
    assert_allclose(mfld.Loss(name).value([prediction], [target]), [expected], rtol=1e-14, atol=1e-14)


@every_loss
def test_derivative_is_that_of_the_value(loss):
    h = 1e-4
    for target in targets_of(loss):
        points = samples(loss)
        for k in range(n_outputs(loss)):
            step = h * np.eye(n_outputs(loss))[k]
            difference = (value(loss, points + step, target) - value(loss, points - step, target)) / (2 * h)
            one_sided = [
                (value(loss, points + s * step, target) - value(loss, points, target)) * s / h for s in (1, -1)
            ]
            smooth = np.abs(one_sided[0] - one_sided[1]) < 0.1  # no kink of the value within the stencil
            assert smooth.mean() > 0.9
            # Truncation: h^2 where the third derivative exists; h/4 times the jump of the second one where it does not.
            tolerance = h * loss.smoothness / 4 if loss.name in CURVATURE_JUMPS else 1e-7
            got = derivative(loss, points, target)[:, k]
            assert_allclose(got[smooth], difference[smooth], atol=tolerance)


@every_loss
def test_the_loss_is_convex_as_it_says(loss):
    assert loss.convex
    points, others = samples(loss), samples(loss)[::-1]
    for target in targets_of(loss):
        middle = value(loss, (points + others) / 2, target)
        assert (middle <= (value(loss, points, target) + value(loss, others, target)) / 2 + 1e-12).all()


@every_loss
def test_smoothness_is_the_lipschitz_constant_of_the_derivative(loss):
    # Neighbours at distance 1e-6 anywhere, and at points where the curvature is largest: 0, +-1, equal scores.
    points = np.concatenate([samples(loss, 4000), np.zeros((1, n_outputs(loss))), [[1.0] * n_outputs(loss)]])
    if n_outputs(loss) > 1:
        points = np.concatenate([points, [[0.0, 0.0, -40.0]]])
    steepest = 0.0
    for target in targets_of(loss):
        for direction in itertools.product([-1.0, 0.0, 1.0], repeat=n_outputs(loss)):
            if any(direction):
                step = 1e-6 * np.array(direction)
                change = derivative(loss, points + step, target) - derivative(loss, points - step, target)
                steepest = max(steepest, np.linalg.norm(change, axis=1).max() / np.linalg.norm(2 * step))
    if loss.name in NON_SMOOTH:
        assert loss.smoothness == np.inf
        assert steepest > 1e4
    else:
        assert steepest <= loss.smoothness * (1 + 1e-6)
        assert steepest >= loss.smoothness * (1 - 1e-6)


def brute_force_conjugate(loss, dual, target):
    """sup_u g.u - l(u, y) by grids that close in on the best point; for classes u_0 = 0, as only differences matter."""
    free = n_outputs(loss) - 1 or 1
    centre, width = np.zeros(free), 64.0
    axis = np.linspace(-1, 1, 65)
    for _ in range(12):
        grid = centre + width * np.stack(np.meshgrid(*[axis] * free, indexing="ij"), -1).reshape(-1, free)
        points = grid if n_outputs(loss) == 1 else np.insert(grid, 0, 0.0, axis=1)
        values = points @ dual - value(loss, points, target)
        centre, width = grid[values.argmax()], width / 4
    return values.max()


def dual_points(loss, target):
    """Points inside the domain of the conjugate: convex combinations of derivatives, which lie in it."""
    slopes = derivative(loss, np.vstack([samples(loss, 20), np.full((1, n_outputs(loss)), 3.0)]), target)
    return (slopes[:-1] + slopes[1:]) / 2


@every_loss
def test_conjugate_is_the_supremum(loss):
    for target in targets_of(loss):
        dual = dual_points(loss, target)
        assert np.ptp(dual, axis=0).min() > 0.1 * min(1, loss.parameter or 1)
        got = loss.conjugate(dual if n_outputs(loss) > 1 else dual[:, 0], np.full(len(dual), target))
        expected = [brute_force_conjugate(loss, g, target) for g in dual]
        assert_allclose(got, expected, atol=1e-6)


@every_loss
def test_fenchel_young_is_tight_at_the_derivative(loss):
    for target in targets_of(loss):
        points = samples(loss)
        slope = derivative(loss, points, target)
        dual = slope if n_outputs(loss) > 1 else slope[:, 0]
        conjugate = loss.conjugate(dual, np.full(len(dual), target))
        assert_allclose(value(loss, points, target) + conjugate, np.sum(points * slope, axis=1), atol=1e-9)


@pytest.mark.parametrize(
    ("loss", "dual", "target"),
    [
        (mfld.Loss("absolute"), 1.01, 0.0),
        (mfld.Loss("huber", delta=0.5), -0.51, 0.0),
        (mfld.Loss("logistic"), 0.01, 1.0),
        (mfld.Loss("logistic"), 1.01, -1.0),
        (mfld.Loss("hinge"), -0.01, -1.0),
        (mfld.Loss("smoothed_hinge"), -1.01, 1.0),
        (mfld.Loss("cross_entropy"), [0.5, -0.5, 0.1], 0),
        (mfld.Loss("cross_entropy"), [0.2, 0.2, -0.4], 0),
    ],
)
def test_conjugate_is_infinite_outside_of_its_domain(loss, dual, target):
    assert loss.conjugate([dual], [target]) == np.inf
    far = np.linspace(-1e6, 1e6, 3)  # and the supremum is indeed unbounded
    points = np.array(list(itertools.product(far, repeat=np.size(dual))))
    assert np.max(points @ np.atleast_1d(dual) - value(loss, points, target)) > 1e3


@pytest.mark.parametrize("name", [loss.name for loss in LOSSES if loss.targets != "class" and not loss.parameter])
def test_outputs_are_summed(name):
    loss = mfld.Loss(name)
    rng = np.random.default_rng(0)
    predictions, targets = rng.normal(size=(5, 3)), np.sign(rng.normal(size=(5, 3)))
    columns = [loss.value(predictions[:, k], targets[:, k]) for k in range(3)]
    assert_allclose(loss.value(predictions, targets), np.sum(columns, axis=0))
    slopes = [loss.derivative(predictions[:, k], targets[:, k]) for k in range(3)]
    assert_allclose(loss.derivative(predictions, targets), np.stack(slopes, axis=1))


def test_shapes_and_precision():
    loss = mfld.Loss("squared")
    assert loss.derivative(np.ones(4), np.zeros(4)).shape == (4,)
    assert loss.derivative(np.ones((4, 1)), np.zeros(4)).shape == (4, 1)
    assert loss.value(np.ones(4, np.float32), np.zeros(4)).dtype == np.float32
    assert loss.value([1, 2], [0, 0]).dtype == np.float64


def test_a_loss_is_a_value():
    assert mfld.Loss("huber") == mfld.Loss("huber", delta=1)
    assert mfld.Loss("huber") != mfld.Loss("huber", delta=2)
    assert len({mfld.Loss("hinge"), mfld.Loss("hinge")}) == 1
    assert repr(mfld.Loss("huber", delta=2)) == "Loss('huber', delta=2.0)"
    assert repr(mfld.Loss("hinge")) == "Loss('hinge')"
    assert pickle.loads(pickle.dumps(mfld.Loss("huber", delta=2))) == mfld.Loss("huber", delta=2)
    with pytest.raises(AttributeError):
        mfld.Loss("hinge").name = "huber"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mfld.Loss("mse"), ValueError, "loss must be one of squared, .*cross_entropy; got 'mse'"),
        (lambda: mfld.Loss(None), TypeError, "loss must be a name, one of .*; got None"),
        (lambda: mfld.Loss("squared", delta=1.0), TypeError, "the loss 'squared' has no parameter, got 'delta'"),
        (
            lambda: mfld.Loss("huber", gamma=1.0),
            TypeError,
            "the loss 'huber' has the parameter 'delta' only, got 'gamma'",
        ),
        (lambda: mfld.Loss("huber", delta=0.0), ValueError, "delta must be finite and positive, got 0.0"),
        (lambda: mfld.Loss("smoothed_hinge", gamma=np.nan), ValueError, "gamma must be finite and positive, got nan"),
        (
            lambda: mfld.Loss("squared").value([1.0], [1.0, 2.0]),
            ValueError,
            "targets must have 1 rows to match predictions",
        ),
        (
            lambda: mfld.Loss("squared").value([np.nan], [1.0]),
            ValueError,
            "predictions must be finite, got nan at index 0",
        ),
        (lambda: mfld.Loss("squared").value([1.0], [np.inf]), ValueError, "targets must be finite, got inf at index 0"),
        (lambda: mfld.Loss("squared").value([], []), ValueError, r"predictions must have shape \(n,\) or \(n, K\)"),
        (
            lambda: mfld.Loss("squared").value([[1, 2]], [1]),
            ValueError,
            r"targets must have shape \(n, 2\).*got \(1,\)",
        ),
        (
            lambda: mfld.Loss("logistic").conjugate([0.0], [0.0]),
            ValueError,
            "'logistic' must be -1 or .1; 1 of 1 .*: 0",
        ),
        (lambda: mfld.Loss("cross_entropy").value([1.0], [0]), ValueError, "n_outputs must be the number of classes"),
    ],
)
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("name", [loss.name for loss in LOSSES if loss.targets == "sign"])
@pytest.mark.parametrize(
    ("targets", "shown"),
    [
        ([0, 1, 0, 1], "2 of 4 are not: 0"),
        ([-1, 1, 2, 3.5], "2 of 4 are not: 2, 3.5"),
        ([True, False], "1 of 2 are not: 0"),
    ],
)
def test_sign_targets_show_what_does_not_fit(name, targets, shown):
    with pytest.raises(ValueError, match=rf"targets of the loss '{name}' must be -1 or \+1; {shown}$"):
        mfld.Loss(name).check_targets(targets)


@pytest.mark.parametrize(
    ("targets", "shown"),
    [
        ([1, 2, 3], "1 of 3 are not: 3"),
        ([-1, 0.5, 0], "2 of 3 are not: -1, 0.5"),
        (range(30), "27 of 30 .*: 3, 4, 5, 6, 7, ..."),
    ],
)
def test_class_targets_show_what_does_not_fit(targets, shown):
    message = f"targets of the loss 'cross_entropy' must be integers between 0 and 2; {shown}"
    with pytest.raises(ValueError, match=message):
        mfld.Loss("cross_entropy").check_targets(targets, n_outputs=3)


def test_targets_that_fit():
    assert mfld.Loss("logistic").check_targets([-1, 1]).shape == (2, 1)
    assert mfld.Loss("logistic").check_targets([[-1], [1]]).shape == (2, 1)
    assert mfld.Loss("hinge").check_targets([[-1, 1, 1]], n_outputs=3).shape == (1, 3)
    assert mfld.Loss("cross_entropy").check_targets([0.0, 2.0, 1.0], n_outputs=3).shape == (3, 1)
