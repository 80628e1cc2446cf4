"""Schedules: against their formulas, and as a run uses them."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mfld
from mfld.schedules import Constant, Geometric, Logarithmic, Piecewise, Power, SwitchOff

FORMULAS = [
    (Constant(0.3), lambda k: 0.3),
    (Geometric(2.0, factor=0.5, stage_length=3), lambda k: 2.0 * 0.5 ** (k // 3)),
    (Logarithmic(2.0), lambda k: 2.0 / math.log(2 + k)),
    (Power(2.0, exponent=0.7), lambda k: 2.0 / (1 + k) ** 0.7),
    (SwitchOff(Power(1.0), at=4), lambda k: 1 / (1 + k) if k < 4 else 0.0),
    (SwitchOff(0.5, at=0), lambda k: 0.0),
    (Piecewise([1.0, Power(2.0)], starts=[0, 5]), lambda k: 1.0 if k < 5 else 2.0 / (1 + k - 5)),
    (Geometric(1.0, 0.5, 2) * Power(3.0), lambda k: 0.5 ** (k // 2) * 3 / (1 + k)),
    (0.1 * Power(1.0), lambda k: 0.1 / (1 + k)),
]


@pytest.mark.parametrize(("schedule", "formula"), FORMULAS, ids=lambda x: repr(x) if not callable(x) else "")
def test_schedule_is_its_formula_from_any_step(schedule, formula):
    for first in (0, 7, 2**40):
        steps = np.arange(first, first + 12)
        assert_allclose(schedule(steps), [formula(int(k)) for k in steps], rtol=1e-14)
    assert schedule(np.arange(0)).shape == (0,)


def make_risk(l2=0.2):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(20, 3))
    return mfld.EmpiricalRisk(mfld.TwoLayerNetwork(3), inputs, inputs[:, 0], loss="squared", l2=l2)


def make_solver(**arguments):
    return mfld.MFLD(n_particles=8, dtype="float64", **{"step_size": 0.1, "temperature": 0.05, **arguments})


def test_a_run_uses_the_value_of_each_step_wherever_it_is_cut():
    step_size, temperature, l2 = Power(0.2, 0.5), Geometric(0.1, 0.5, 3), Logarithmic(0.1)
    risk = make_risk()
    solver = make_solver(step_size=step_size, temperature=temperature, l2=l2)
    whole = solver.run(risk, 10, seed=1)
    particles = solver.init(risk, seed=1).particles
    for k in range(10):
        eta, t, ridge = (float(s(np.array([k]))[0]) for s in (step_size, temperature, l2))
        gradient = risk.loss_gradient(particles) + 2 * ridge * particles
        xi = mfld.noise.normals(1, k, 8, 5, dtype="float64")
        particles = particles - eta * gradient + math.sqrt(2 * t * eta) * xi
    assert_allclose(whole.particles, particles, rtol=1e-9)
    assert (whole.info.step_size, whole.info.temperature, whole.info.l2) == pytest.approx((eta, t, ridge), rel=1e-14)
    assert_allclose(whole.history["temperature"], [float(temperature(np.array([k]))[0]) for k in range(10)])

    state = solver.init(risk, seed=1)
    for n in (1, 4, 5):
        state, _ = solver.advance(risk, state, n)
    assert state.particles.tobytes() == whole.particles.tobytes()


def test_annealing_leaves_the_reference_as_it_is():
    # N(0, T / (2 l2)): the ridge follows the temperature, unless it is given.
    cooling = Geometric(0.1, 0.5, 2)
    result = make_solver(temperature=cooling).run(make_risk(l2=0.2), 5)
    assert_allclose(result.history["temperature"], [0.1, 0.1, 0.05, 0.05, 0.025])
    assert_allclose(result.history["l2"] / result.history["temperature"], 2.0)
    kept = make_solver(temperature=cooling, l2=0.2).run(make_risk(l2=0.2), 5)
    assert_allclose(kept.history["l2"], 0.2)
    late = make_solver(temperature=cooling)
    state, info = late.advance(make_risk(l2=0.2), late.init(make_risk(l2=0.2)), 5)
    assert info.l2 == pytest.approx(0.05)  # relative to step 0, not to where the call began
    assert late.advance(make_risk(l2=0.2), state, 1)[1].l2 == pytest.approx(0.05)
    assert make_solver(temperature=0.0).run(make_risk(l2=0.2), 1).info.l2 == 0.2


def test_a_function_is_a_schedule():
    by_class = make_solver(step_size=Power(0.2)).run(make_risk(), 6)
    by_function = make_solver(step_size=lambda k: 0.2 / (1 + k)).run(make_risk(), 6)
    assert_allclose(by_function.particles, by_class.particles, rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"step_size": lambda k: 0.1 - 0.05 * k},
            "step_size must be finite and positive at every step, got 0.0 at step 2",
        ),
        ({"temperature": lambda k: float("nan")}, r"temperature\(0\) must be finite, got nan"),
        (
            {"temperature": lambda k: 1.0 - k},
            "temperature must be finite and at least 0 at every step, got -1.0 at step 2",
        ),
        ({"l2": lambda k: -1.0}, "l2 must be finite and at least 0 at every step, got -1.0 at step 0"),
        ({"step_size": SwitchOff(0.1, at=3)}, "step_size must be finite and positive at every step, got 0.0 at step 3"),
    ],
)
def test_values_out_of_range_are_refused_with_their_step(arguments, message):
    solver = make_solver(**arguments)
    with pytest.raises(ValueError, match=message):
        solver.advance(make_risk(), solver.init(make_risk()), 6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(-1.0), "value must be finite and at least 0, got -1.0"),
        (lambda: Geometric(1.0, 0.0, 5), "factor must be finite and positive, got 0.0"),
        (lambda: Geometric(1.0, 0.5, 0), "stage_length must be between 1 and 281474976710655, got 0"),
        (lambda: Power(1.0, exponent=-1.0), "exponent must be finite and at least 0, got -1.0"),
        (lambda: Piecewise([1.0, 2.0], starts=[0]), r"starts must be 0 and then increase, one for each of 2 schedules"),
        (lambda: Piecewise([1.0, 2.0], starts=[1, 2]), r"starts must be 0 and then increase"),
        (lambda: SwitchOff(1.0, at=-1), "at must be between 0 and 281474976710655, got -1"),
    ],
)
def test_refused_schedules(make, message):
    with pytest.raises(ValueError, match=message):
        make()
