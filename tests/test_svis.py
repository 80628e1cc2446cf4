"""Stein variational importance sampling: its densities by finite differences, its constants by closed forms."""

import numpy as np
import pytest

import mfld
from mfld import kernels, potentials
from mfld.algorithms.svis import _carried

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    "kernel",
    [kernels.Gaussian(1.2), kernels.Gaussian((0.7, 1.0, 2.0)), kernels.InverseMultiquadric(0.9), kernels.Matern52(1.0)],
    ids=repr,
)
def test_densities_change_by_the_determinant_of_the_map(kernel):
    leaders, vectors, x = RNG.normal(size=(7, 3)), RNG.normal(size=(7, 3)), RNG.normal(size=(4, 3))
    h, temperature, width = 0.3, 0.7, 1e-5
    fields, logs, bad = _carried(kernel, x, leaders, vectors, temperature, h)
    assert bad is None
    by_pairs = kernel.field(x, leaders, vectors, repulsion=temperature)
    np.testing.assert_allclose(fields, by_pairs, rtol=1e-12, atol=1e-14)
    for i in range(4):
        steps = width * np.eye(3)
        above, below = (x[i] + s * steps for s in (1, -1))
        moved = [
            points + h * kernel.field(points, leaders, vectors, repulsion=temperature) for points in (above, below)
        ]
        jacobian = (moved[0] - moved[1]).T / (2 * width)
        assert logs[i] == pytest.approx(np.log(np.linalg.det(jacobian)), abs=1e-8)


@pytest.mark.parametrize(
    ("potential", "options"),
    [
        (potentials.Gaussian([1.0, -0.5], [[1.0, 0.5], [0.5, 0.8]]), {"step_size": 0.3, "initial_scale": 2.0}),
        (potentials.DoubleWell(), {"step_size": 0.1, "initial_scale": 1.5}),
        (potentials.Banana(), {"step_size": 0.1, "initial_scale": 2.5}),
    ],
    ids=lambda given: type(given).__name__,
)
def test_normalising_constants_are_within_their_errors(potential, options):
    solver = mfld.SVIS(400, n_leaders=60, temperature=1.0, dtype="float64", n_replicates=8, **options)
    state = solver.run(potential, n_steps=40).state
    exact = potential.log_normaliser()
    whole = solver.normaliser(potential, state)
    assert whole.effective_sample_size > 300
    assert abs(whole.log_normaliser - exact) < 4 * whole.standard_error
    each = [solver.normaliser(potential, one) for one in state.each()]
    scores = [(one.log_normaliser - exact) / one.standard_error for one in each]
    # Eight draws of about N(0, 1): their root mean square is between 0.4 and 1.7 but for 1 in 1000.
    assert 0.4 < np.sqrt(np.mean(np.square(scores))) < 1.7
    drawn = solver.normaliser(potential, solver.init(potential))
    assert each[0].effective_sample_size > drawn.effective_sample_size / 8  # the map has brought them closer


def test_weighted_means_are_those_of_the_gibbs_law():
    potential = potentials.Gaussian([1.0], [[2.0]])
    solver = mfld.SVIS(2000, n_leaders=50, step_size=0.5, temperature=0.5, initial_scale=2.0, dtype="float64")
    result = solver.run(potential, n_steps=40)
    mean = result.measure.mean(result.particles[:, 0])
    variance = result.measure.mean((result.particles[:, 0] - 1) ** 2)
    assert abs(mean - 1) < 5 * np.sqrt(1 / 1000)
    assert abs(variance - 1) < 5 * np.sqrt(2 / 1000)  # temperature times the covariance
    assert np.average(solver.init(potential).particles) != pytest.approx(1, abs=0.2)


def test_states_go_on_bit_by_bit_and_threads_change_nothing():
    potential = potentials.DoubleWell()
    solver = mfld.SVIS(20, n_leaders=10, step_size=0.05, temperature=0.5, n_replicates=2)
    whole = solver.run(potential, n_steps=6, seed=3).state
    half = solver.run(potential, n_steps=2, seed=3).state
    rest = mfld.SVIS(20, n_leaders=10, step_size=0.05, temperature=0.5, n_replicates=2, num_threads=3)
    then = rest.run(potential, n_steps=4, state=half).state
    for name in ("leaders", "log_density", "log_weights"):
        assert then.buffers[name].tobytes() == whole.buffers[name].tobytes()
    single = mfld.SVIS(20, n_leaders=10, step_size=0.05, temperature=0.5)
    first = single.run(potential, n_steps=6, seed=3).state
    assert first.particles.tobytes() == whole.replicate(0).particles.tobytes()


def test_wrong_problems_are_refused():
    well = potentials.Gaussian([0.0])
    solver = mfld.SVIS(10, n_leaders=5, step_size=0.1, temperature=1.0)
    with pytest.raises(ValueError, match="particles must be left out"):
        solver.init(well, particles=np.zeros((10, 1)))
    with pytest.raises(ValueError, match="objective must be a Potential with a value"):
        solver.run(mfld.Potential(lambda x: x, n_coordinates=1), n_steps=1)
    with pytest.raises(TypeError, match="kernel must be a Radial"):
        mfld.SVIS(step_size=0.1, temperature=1.0, kernel=kernels.Dirichlet([0.5]))
    with pytest.raises(ValueError, match="derivatives"):
        mfld.SVIS(step_size=0.1, temperature=1.0, kernel=kernels.Laplace(1.0))
    with pytest.raises(ValueError, match="step_size must be smaller than 100"):
        mfld.SVIS(50, n_leaders=20, step_size=100.0, temperature=1.0).run(potentials.DoubleWell(), n_steps=5)
    with pytest.raises(ValueError, match="no buffer leaders"):
        solver.run(well, n_steps=1, state=mfld.MFLD(10, step_size=0.1, temperature=1.0).init(well))
