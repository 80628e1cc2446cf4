"""Programs with ``np.seterr(all="raise")``: what is right without it is right with it, to the bit."""

import contextlib

import numpy as np
import pytest

import mfld
from mfld import floating, quantities, schedules
from mfld.certificates import fenchel_young_gap, log_partition
from mfld.sklearn import MeanFieldClassifier

pytestmark = pytest.mark.filterwarnings("ignore:the loss of the network")  # runs of a few steps, on wild numbers
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(40, 2))
SIGNS = np.sign(INPUTS[:, 0])
SEPARABLE = 300 * INPUTS  # outputs whose exponentials are beyond all types


def make_risk(**arguments):
    model = mfld.TwoLayerNetwork(2, activation="tanh", readout="bounded", readout_bound=5.0)
    return mfld.EmpiricalRisk(model, INPUTS, SIGNS, **{"loss": "logistic", "l2": 0.02, **arguments})


def trained(solver, objective=None, **arguments):
    return lambda: solver.run(objective or make_risk(), 6, **arguments).particles


def make_solver(**arguments):
    return mfld.MFLD(**{"n_particles": 20, "step_size": 0.1, "temperature": 0.01, **arguments})


def classified(method, **arguments):
    def call():
        fast = {"n_particles": 20, "n_steps": 20, "random_state": 0, "readout_bound": 1e4, "step_size": 1.0}
        classifier = MeanFieldClassifier(**{**fast, **arguments}).fit(SEPARABLE, SIGNS + 2 * (INPUTS[:, 1] > 0))
        return getattr(classifier, method)(SEPARABLE)

    return call


def certified():
    found = mfld.certificate(make_risk(), np.full(40, -0.25) * SIGNS, 0.02, n_chains=64, most_moves=512)
    return np.array([found.gap, found.upper])


def of_a_state(quantity):
    return lambda: quantity(make_solver().init(make_risk(), seed=1))


TINY = np.full((8, 2), 1e-30, np.float32)  # squares that float32 does not hold
WELL = mfld.potentials.GaussianMixture([[-40.0, 0.0], [40.0, 0.0]], 1.0)
PATHS = {
    "overdamped": trained(make_solver()),
    "automatic step size": trained(make_solver(step_size=None)),
    "double": trained(make_solver(dtype="float64", gradient=mfld.SVRG(8, 3))),
    "dual averaging": trained(mfld.PDA(20, step_size=0.1, temperature=0.02)),
    "dual ascent": trained(mfld.PSDCA(20, temperature=0.02)),
    "two modes far apart": trained(make_solver(dynamics=mfld.MALA(), temperature=1.0), WELL),
    "tiny particles": trained(
        make_solver(n_particles=8, temperature=0.0, dynamics=mfld.Preconditioned()),
        mfld.Potential(lambda x: x, lambda x: np.sum(x**2, axis=1), n_coordinates=2),
        particles=TINY,
    ),
    "schedule": lambda: schedules.values("h", schedules.Geometric(1.0, 1e-9, 1), 0, 50),
    "power": lambda: schedules.values("h", schedules.Power(1.0, 1e300), 0, 50),
    "certificate": certified,
    "partition function": lambda: log_partition(make_risk(), -SIGNS / 4, 0.02, n_chains=64, n_moves=20),
    "gap of a pair": lambda: fenchel_young_gap(make_risk(), 1e4 * SIGNS, -1e-300 * SIGNS),
    "loss": of_a_state(quantities.loss(make_risk())),
    "score": of_a_state(quantities.score(make_risk())),
    "gap": of_a_state(quantities.gap(make_solver(), make_risk(), 0.02, n_chains=64, most_moves=512)),
    "resampled": lambda: mfld.resample(mfld.Cloud(np.ones((3, 2)), [1.0, 1e-310, 1.0]), 5).particles,
    "probabilities": classified("predict_proba"),
    "logarithms of probabilities": classified("predict_log_proba", loss="logistic"),
    "stopped early": classified("decision_function", early_stopping=True, validation_fraction=0.3),
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_the_state_of_the_program_changes_nothing(path):
    usual = np.asarray(path())
    with np.errstate(all="raise"):
        assert np.asarray(path()).tobytes() == usual.tobytes()
        assert set(np.geterr().values()) == {"raise"}


@pytest.mark.parametrize("name", ["tiny particles", "probabilities"])
def test_underflow_would_end_these(name, monkeypatch):
    """What the decorator is for: without it they fail. The other paths meet other errors, or none but in the core."""
    monkeypatch.setattr(floating.np, "errstate", lambda **kinds: contextlib.nullcontext())
    np.seterr(under="raise")
    try:
        with pytest.raises(FloatingPointError, match="underflow"):
            PATHS[name]()
    finally:
        np.seterr(under="ignore")


@pytest.mark.parametrize(
    "function", [lambda x: np.exp(x + 1000), lambda x: x / np.zeros(1), lambda x: np.log(-1 - x**2)]
)
def test_functions_of_the_user_have_the_state_of_the_program(function):
    well = mfld.Potential(lambda x: np.clip(function(x.astype(float)), -1, 1), n_coordinates=1)
    with np.errstate(all="raise"), pytest.raises(FloatingPointError):
        make_solver().run(well, 1)
    with np.errstate(all="warn"), pytest.warns(RuntimeWarning), contextlib.suppress(ValueError, mfld.DivergenceError):
        make_solver().run(well, 1)
