"""Domains, references, and objectives with members: by closed forms, and end to end."""

import math
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import mfld
from mfld import _core, checkpoint, noise, references
from mfld.space import Block

BLOCKS = {
    "sphere": mfld.Sphere(3),
    "torus": mfld.Torus(2, period=1.5),
    "box": mfld.Box([-1.0, 0.0], [0.5, 2.0]),
    "line": mfld.Euclidean(2),
}


# ---- blocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_retraction_leads_to_the_domain_and_leaves_it_alone(block, dtype, rng):
    points = (3 * rng.normal(size=(500, block.n_coordinates))).astype(dtype)
    there = block.retract(points)
    assert there.dtype == dtype
    if block.limits is not None:
        lower, upper = (end.astype(dtype) for end in block.limits)
        assert (there >= lower).all()
        assert (there <= upper).all()
        assert (there != points).any()
    again = block.retract(there)
    assert_allclose(again, there, atol=4 * np.finfo(dtype).eps)


def test_retractions_by_hand():
    assert_allclose(mfld.Sphere(2).retract(np.array([[3.0, 4.0]])), [[0.6, 0.8]])
    assert_allclose(mfld.Torus(1).retract(np.array([[-0.25], [1.0], [2.75], [0.5]])), [[0.75], [0.0], [0.75], [0.5]])
    box = mfld.Box([0.0], [1.0])
    assert_allclose(
        box.retract(np.array([[-0.25], [1.25], [2.25], [-1.25], [0.5]]))[:, 0], [0.25, 0.75, 0.25, 0.75, 0.5]
    )
    tiny = mfld.Torus(1).retract(np.array([[-1e-30]], np.float32))  # rounding leads to the period, which is 0
    assert tiny.item() == 0


def test_tangents_are_derivatives_of_the_retraction(rng):
    sphere = mfld.Sphere(3)
    points = sphere.retract(rng.normal(size=(50, 3)))
    vectors = rng.normal(size=(50, 3))
    h = 1e-6
    slope = (sphere.retract(points + h * vectors) - sphere.retract(points - h * vectors)) / (2 * h)
    assert_allclose(sphere.tangent(points, vectors), slope, atol=1e-8)


@pytest.mark.parametrize(
    ("block", "volume"),
    [
        (mfld.Sphere(2), 2 * math.pi),
        (mfld.Sphere(3), 4 * math.pi),
        (mfld.Sphere(4), 2 * math.pi**2),
        (mfld.Torus(2, period=1.5), 2.25),
        (mfld.Box([-1.0, 0.0], [0.5, 2.0]), 3.0),
        (mfld.Euclidean(1), math.inf),
    ],
)
def test_volumes(block, volume):
    assert_allclose(block.volume, volume, rtol=1e-14)


@pytest.mark.parametrize("name", ["sphere", "torus", "box"])
def test_draws_are_uniform(name):
    block = BLOCKS[name]
    space = mfld.Space(domain=[block])
    n = 40_000
    draws = space.draw(noise.Place.of(4), n, "float64")
    assert_allclose(block.retract(draws), draws, atol=1e-12)
    if name == "sphere":  # Archimedes: each coordinate is uniform on (-1, 1)
        lower, upper = -np.ones(3), np.ones(3)
    else:
        lower, upper = block.limits
    shares = (draws - lower) / (upper - lower)
    assert_allclose(shares.mean(axis=0), 1 / 2, atol=5 / math.sqrt(12 * n))
    assert_allclose((shares**2).mean(axis=0), 1 / 3, atol=5 * math.sqrt(4 / 45 / n))
    correlation = np.corrcoef(draws.T)[np.triu_indices(block.n_coordinates, 1)]
    assert (np.abs(correlation) < 5 / math.sqrt(n)).all()


def test_spaces_say_what_does_not_fit():
    for call, message in [
        (mfld.Space, "n_coordinates must be given"),
        (lambda: mfld.Space(2, domain=[mfld.Sphere(3)]), "n_coordinates must be at least 3, got 2"),
        (lambda: mfld.Space(5, 4, domain=[mfld.Sphere(3)]), "n_moving must be 3"),
        (lambda: mfld.Space(3, 4), "n_moving must be between 1 and 3, got 4"),
        (lambda: mfld.Sphere(1), "n_coordinates must be at least 2"),
        (lambda: mfld.Torus(1, period=0.0), "period must be finite and positive"),
        (lambda: mfld.Box([0.0], [0.0]), "upper must be above lower"),
        (lambda: mfld.Box([0.0, 1.0], [1.0]), "upper must have shape"),
        (lambda: mfld.Potential(lambda x: x), "n_coordinates must be given, or space"),
        (
            lambda: mfld.Potential(lambda x: x, n_coordinates=1, space=mfld.Space(1)),
            "n_coordinates and n_moving must be",
        ),
        (
            lambda: mfld.Potential(lambda x: x, space=mfld.Space(domain=[mfld.Torus(1)]), l2=0.1),
            "reference must not be Gaussian on a domain",
        ),
        (
            lambda: mfld.Potential(lambda x: x, n_coordinates=1, reference=references.Uniform()),
            "domain must be bounded",
        ),
        (
            lambda: mfld.Potential(lambda x: x, n_coordinates=1, reference=references.Free(), l2=0.1),
            "l2 must be left out where reference is given",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match=r"domain\[1\] must be a block, like Sphere\(3\), got 3"):
        mfld.Space(domain=[mfld.Sphere(2), 3])


# ---- references ------------------------------------------------------------------------------------------------------


def test_references_against_quadrature():
    temperature, line = 0.7, np.linspace(-15, 15, 200_001)
    gaussian = references.Gaussian(0.3)
    density = np.exp(-gaussian.energy(line[:, np.newaxis]) / temperature)
    total = np.sum(density) * (line[1] - line[0])
    assert_allclose(gaussian.log_normaliser(mfld.Space(1), temperature), math.log(total), rtol=1e-10)
    assert_allclose(gaussian.log_normaliser(mfld.Space(4, 3), temperature), 3 * math.log(total), rtol=1e-10)
    assert_allclose(
        np.gradient(gaussian.energy(line[:, np.newaxis]), line)[5:-5], gaussian.gradient(line)[5:-5], rtol=1e-6
    )
    draws = gaussian.draw(noise.Place.of(2), 20_000, mfld.Space(3, 2), temperature, "float64")
    variance = np.sum(line**2 * density) / np.sum(density)
    assert draws.shape == (20_000, 2)
    assert_allclose(draws.var(axis=0), variance, rtol=5 * math.sqrt(2 / 20_000))
    box = mfld.Space(domain=[mfld.Box([0.0, 0.0], [2.0, 3.0])])
    assert_allclose(references.Uniform().log_normaliser(box, temperature), math.log(6))
    with pytest.raises(ValueError, match=r"reference must be Gaussian or Uniform to be drawn from, got Free\(\)"):
        references.Free().draw(noise.Place.of(0), 1, box, 1.0, "float32")


def test_annealing_keeps_the_reference():
    temperatures = np.array([1.0, 0.5, 0.25])
    assert_allclose(references.Gaussian(0.4).follow(temperatures, 1.0) / temperatures, 0.4)
    assert_allclose(references.Gaussian(0.4).follow(np.zeros(1), 0.0), 0.4)
    assert (references.Uniform().follow(temperatures, 1.0) == 0).all()


# ---- laws on domains -------------------------------------------------------------------------------------------------


def test_von_mises_fisher_law_on_the_sphere():
    """V = -k x_1 on the sphere of three dimensions: the law of x_1 is exp(k x_1 / T), of mean coth(k/T) - T/k."""
    strength, temperature = 2.0, 0.5
    space = mfld.Space(domain=[mfld.Sphere(3)])
    slope = np.array([-strength, 0.0, 0.0])
    field = mfld.Potential(lambda x: np.tile(slope, (len(x), 1)), space=space, reference=references.Uniform())
    expected = 1 / math.tanh(strength / temperature) - temperature / strength
    means = []
    for step_size in (0.04, 0.02):
        solver = mfld.MFLD(20_000, step_size=step_size, temperature=temperature, dtype="float64")
        particles = solver.run(field, n_steps=round(6 / step_size), seed=1).particles
        assert_allclose(np.sum(particles**2, axis=1), 1, rtol=1e-12)
        means.append(particles[:, 0].mean())
    error = np.sqrt(5) * 0.25 / math.sqrt(20_000)  # of the extrapolated mean
    assert abs(2 * means[1] - means[0] - expected) < 5 * error


@pytest.mark.parametrize("name", ["circle", "interval"])
def test_laws_on_a_circle_and_in_an_interval(name):
    """The density exp(cos(2 pi x) / T), or exp(-x / T) between reflections: two steps extrapolate their bias away."""
    temperature, n = 0.5, 200_000
    line = np.linspace(0, 1, 100_001)
    line = (line[1:] + line[:-1]) / 2
    if name == "circle":
        block, sizes, time = mfld.Torus(1), (4e-3, 2e-3), 0.5
        well = mfld.Potential(lambda x: 2 * np.pi * np.sin(2 * np.pi * x), space=mfld.Space(domain=[block]))
        density, seen = np.exp(np.cos(2 * np.pi * line) / temperature), lambda x: np.cos(2 * np.pi * x)
    else:
        block, sizes, time = mfld.Box([0.0], [1.0]), (8e-2, 4e-2), 3.0
        well = mfld.Potential(np.ones_like, space=mfld.Space(domain=[block]))
        density, seen = np.exp(-line / temperature), lambda x: x
    expected = np.average(seen(line), weights=density)
    spread = math.sqrt(np.average((seen(line) - expected) ** 2, weights=density) / n)
    bias = []
    for step_size in sizes:
        solver = mfld.MFLD(n, step_size=step_size, temperature=temperature, dtype="float64")
        x = solver.run(well, n_steps=round(time / step_size), seed=2).particles
        assert ((x >= 0) & (x <= 1)).all()
        bias.append(seen(x).mean() - expected)
    assert abs(bias[1]) > 5 * spread  # there is something to extrapolate, and half of it at half of the step:
    assert abs(2 * bias[1] - bias[0]) < 5 * math.sqrt(5) * spread


# ---- end to end ------------------------------------------------------------------------------------------------------


class Lifted(mfld.Objective):
    """Particles (direction, mass) on sphere x line, whose mean product is to be a target: interacting, U convex."""

    space = mfld.Space(domain=[mfld.Sphere(3), mfld.Euclidean(1)])
    target = np.array([0.5, -0.25, 0.1])

    def residual(self, measure):
        x = self.cloud(measure).particles.astype(np.float64)
        return np.mean(x[:, :3] * x[:, 3:], axis=0) - self.target

    def loss(self, measure):
        return float(np.sum(self.residual(measure) ** 2) / 2)

    def loss_gradient(self, measure, batch=None):
        return self.first_variation(measure).loss_gradient(self.cloud(measure).particles)

    def first_variation(self, measure):
        slope = self.residual(measure)

        def gradient(x):
            return np.column_stack([x[:, 3:] * slope, x[:, :3] @ slope])

        return mfld.Potential(gradient, lambda x: x[:, 3] * (x[:, :3] @ slope), space=self.space)


class Attracted(mfld.Objective):
    """Members a = 0, 1, 2 whose means are drawn to a target each and to the mean of the next member."""

    space = mfld.Space(2)
    members = (3,)
    reference = references.Gaussian(0.1)
    targets = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])

    def residual(self, measure):
        means = self.cloud(measure).particles.mean(axis=-2)
        return 1.5 * means - self.targets - 0.25 * (np.roll(means, 1, axis=0) + np.roll(means, -1, axis=0))

    def loss(self, measure):
        means = self.cloud(measure).particles.mean(axis=-2)
        return float(np.sum(means * self.residual(measure) - self.targets * means) / 2)

    def loss_gradient(self, measure, batch=None):
        particles = self.cloud(measure).particles
        return np.broadcast_to(self.residual(measure)[:, np.newaxis], particles.shape)

    def first_variation(self, measure):
        raise TypeError("not needed here")


def uniform_well():
    return mfld.Potential(
        np.cos,
        lambda x: np.sin(x).sum(axis=1),
        space=mfld.Space(domain=[mfld.Torus(2, period=2 * np.pi)]),
        reference=references.Uniform(),
    )


OBJECTIVES = {"sphere x line": Lifted, "members": Attracted, "uniform reference": uniform_well}


def contents(state):
    return {
        **{name: cloud.particles.tobytes() for name, cloud in state.clouds.items()},
        **{name: value.tobytes() for name, value in state.buffers.items()},
    }


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("dynamics", [mfld.Overdamped(), mfld.Underdamped(1.0)], ids=["overdamped", "underdamped"])
def test_end_to_end(name, dynamics, tmp_path):
    """Run, checkpoint, resume, replicates: all to the bit."""
    objective = OBJECTIVES[name]()
    solver = mfld.MFLD(50, step_size=0.05, temperature=0.02, dynamics=dynamics)
    if not objective.space.flat and dynamics != mfld.Overdamped():
        with pytest.raises(ValueError, match=r"dynamics must be Overdamped\(\) on the domain"):
            solver.init(objective)
        return
    whole = solver.run(objective, 40, seed=7)
    assert whole.particles.shape == (*objective.members, 50, objective.n_coordinates)
    assert whole.history["loss"][-1] < whole.history["loss"][0]
    path = tmp_path / "run.npz"
    checkpoint.run(solver, objective, 15, seed=7, path=path)
    resumed = checkpoint.run(solver, OBJECTIVES[name](), 40, seed=7, path=path)
    assert contents(resumed.state) == contents(whole.state)
    several = mfld.MFLD(50, step_size=0.05, temperature=0.02, dynamics=dynamics, n_replicates=3)
    together = several.run(objective, 40, seed=7)
    for r in range(3):
        alone = solver.run(objective, 40, state=solver.init(objective, seed=7, replica=r))
        assert contents(together.state.replicate(r)) == contents(alone.state)
    assert contents(together.state.replicate(0)) == contents(whole.state)
    assert together.measure.particles.shape == (*objective.members, 150, objective.n_coordinates)


def test_members_have_noise_of_their_own_and_their_own_minimisers():
    objective = Attracted()
    solver = mfld.MFLD(20_000, step_size=0.1, temperature=0.02, dtype="float64")
    start = solver.init(objective, seed=3)
    assert len(np.unique(start.particles.ravel())) == start.particles.size
    xi = [noise.Place(start.key, 0, member).normals(5, 2, "float64") for member in range(3)]
    moved, _ = solver.advance(objective, start)
    full = objective.gradient(start.particles)
    for member in range(3):
        change = moved.particles[member, :5] - start.particles[member, :5] + 0.1 * full[member, :5]
        assert_allclose(change, math.sqrt(2 * 0.02 * 0.1) * xi[member], atol=1e-12)
    # The means solve a linear system: 1.5 m_a - (m_{a-1} + m_{a+1}) / 4 + 2 l2 m_a = target_a.
    matrix = 1.7 * np.eye(3) - 0.25 * (np.roll(np.eye(3), 1, axis=0) + np.roll(np.eye(3), -1, axis=0))
    means = solver.run(objective, 300, seed=3).particles.mean(axis=1)
    assert_allclose(means, np.linalg.solve(matrix, objective.targets), atol=5 * math.sqrt(0.1 / 20_000))


def test_particles_off_the_domain_are_refused():
    solver = mfld.MFLD(2, step_size=0.1, temperature=0.1)
    with pytest.raises(ValueError, match="particles must lie on the domain"):
        solver.init(Lifted(), particles=np.ones((2, 4)))
    with pytest.raises(ValueError, match="l2 must be left out on the domain"):
        mfld.MFLD(2, step_size=0.1, temperature=0.1, l2=0.1).init(Lifted())
    for dynamics in (mfld.Preconditioned(), mfld.MALA()):
        with pytest.raises(ValueError, match=r"must be Overdamped\(\) on the domain"):
            mfld.MFLD(2, step_size=0.1, temperature=0.1, dynamics=dynamics).init(uniform_well())


def test_automatic_steps_on_domains_and_members():
    for make in OBJECTIVES.values():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = mfld.MFLD(50, temperature=0.01).run(make(), 30)
        assert np.isfinite(result.particles).all()
        assert result.info.step_size > 0


@pytest.mark.parametrize("name", ["energy", "gradient"])
def test_another_energy_of_a_reference_is_refused_where_it_is_defined(name):
    """Steps would leave it out: they know l2 alone."""
    with pytest.raises(TypeError, match=f"Own must not define {name}: steps take the l2 of a reference"):
        type("Own", (references.Gaussian,), {name: lambda self, theta: theta})


def test_another_energy_in_the_objective_is_the_same_problem():
    """E = |theta - 1|**2 / 2 as part of the potential: N(1, T), with the variance of Euler's scheme."""
    well = mfld.Potential(lambda x: x - 1, lambda x: np.sum((x - 1) ** 2, axis=1) / 2, n_coordinates=1)
    x = mfld.MFLD(20_000, step_size=0.05, temperature=0.5).run(well, n_steps=300, seed=4).particles.astype(float)
    variance = 0.5 / (1 - 0.05 / 2)
    assert abs(x.mean() - 1) < 5 * math.sqrt(variance / 20_000)
    assert abs(x.var() / variance - 1) < 5 * math.sqrt(2 / 20_000)


# ---- in the compiled core --------------------------------------------------------------------------------------------

MIXED = (
    mfld.Sphere(3),
    mfld.Euclidean(2),
    mfld.Torus(2, period=1.3),
    mfld.Box([-0.5, 0.1], [0.25, 2.0]),
    mfld.Sphere(2),
)


@pytest.mark.parametrize("n_particles", [1, 70])
def test_affine_moves_end_on_the_domain(n_particles, dtype, level, rng):
    """By the same move without a domain, and `Space.retract`."""
    space = mfld.Space(domain=MIXED)
    particles, gradient = 3 * rng.normal(size=(2, 2, n_particles, 13)).astype(dtype)
    numbers = (11, (0.1, 0.2, 0.4), 5, 3, 1, 2)
    free, kept = particles.copy(), particles.copy()
    assert _core.backend.affine(free, gradient, *numbers) == -1
    assert _core.backend.affine(kept, gradient, *numbers, space.native()) == -1
    expected = free.copy()
    expected[..., :11] = space.retract(free[..., :11])
    assert_allclose(kept, expected, rtol=0, atol=20 * np.finfo(dtype).eps)
    assert_array_equal(kept[..., 11:], particles[..., 11:])
    for block, part in space.parts():
        if block.limits is not None:
            lower, upper = (end.astype(dtype) for end in block.limits)
            assert (kept[..., part] >= lower).all()
            assert (kept[..., part] <= upper).all()


class Shifted(Block):
    """The circle of period 1 that starts at -1/2, which the core does not know."""

    n_coordinates, volume = 1, 1.0

    def retract(self, points):
        return points - np.floor(points + 0.5)

    def draw(self, normals, uniforms):
        return uniforms - 0.5


def test_a_block_that_the_core_does_not_know_is_brought_back_by_its_own_method(rng):
    own, torus = (mfld.Space(domain=[mfld.Sphere(2), block]) for block in (Shifted(), mfld.Torus(1)))
    assert (own.in_core, own.native(), torus.in_core) == (False, None, True)
    inputs, targets = rng.normal(size=(20, 2)), rng.normal(size=20)
    runs = []
    for space in (own, torus):
        # Of period 1 in the bias: on both circles the same.
        waves = mfld.NeuronModel(
            lambda x, z: np.cos(z @ x[:, :2].T) * np.sin(2 * np.pi * x[:, 2]),
            lambda x, z: np.concatenate(
                [
                    -np.sin(z @ x[:, :2].T)[..., np.newaxis] * z[:, np.newaxis] * np.sin(2 * np.pi * x[:, 2:]),
                    (2 * np.pi * np.cos(z @ x[:, :2].T) * np.cos(2 * np.pi * x[:, 2]))[..., np.newaxis],
                ],
                axis=2,
            ),
            n_features=2,
            space=space,
        )
        risk = mfld.EmpiricalRisk(waves, inputs, targets, loss="squared", reference=references.Uniform())
        start = torus.retract(own.draw(noise.Place.of(2), 30, "float64"))
        start = space.retract(start)
        runs.append(mfld.MFLD(30, step_size=0.01, temperature=0.1, dtype="float64").run(risk, 20, particles=start))
    assert_allclose(torus.retract(runs[0].particles), runs[1].particles, atol=1e-12)
    assert runs[0].particles[:, 2].min() < -0.1


def test_blocks_of_the_core_have_no_subclasses():
    for block in (mfld.Euclidean, mfld.Sphere, mfld.Torus, mfld.Box):
        with pytest.raises(TypeError, match=f"Own must not be a subclass of {block.__name__}.*Subclass Block"):
            type("Own", (block,), {})


@pytest.mark.parametrize("bad", [0, 37, 69])
@pytest.mark.parametrize("value", [0.0, 1e30, np.nan, np.inf])
def test_points_that_lead_nowhere_are_found(bad, value, rng):
    space = mfld.Space(domain=[mfld.Sphere(3), mfld.Torus(1), mfld.Box([0.0], [1.0])])
    particles = rng.normal(size=(70, 5)).astype(np.float32)
    particles[bad, :3] = value
    with np.errstate(invalid="ignore"):
        assert not np.isfinite(space.retract(particles[bad])).all()
    moved = particles.copy()
    still = (np.zeros_like(particles), 5, (0.0, 0.1, 0.0), 5, 3, 1, 2)
    assert _core.backend.affine(moved, *still, space.native()) == bad


def test_a_domain_must_cover_what_moves():
    x = np.zeros((2, 3))
    with pytest.raises(ValueError, match="domain must have 3 coordinates, those that move, got 2"):
        _core.backend.affine(x, x, 3, (0.0, 0.1, 0.1), 1, 0, 0, 1, mfld.Space(domain=[mfld.Sphere(2)]).native())
    with pytest.raises(ValueError, match="a torus of 2 coordinates must have 2 lower and upper ends, got 1 and 2"):
        _core.Domain().add("torus", 2, [0.0], [1.0, 1.0])


class InPython(mfld.Objective):
    """A risk that the core does not know, so that each step is taken by itself."""

    def __init__(self, risk):
        self.risk, self.space, self.reference, self.n_samples = risk, risk.space, risk.reference, risk.n_samples

    def initial_particles(self, n_particles, place=0, dtype="float32"):
        return self.risk.initial_particles(n_particles, place, dtype)

    def loss(self, measure):
        return self.risk.loss(measure)

    def loss_gradient(self, measure, batch=None):
        return self.risk.loss_gradient(measure, batch)

    def first_variation(self, measure, batch=None):
        return self.risk.first_variation(measure, batch)


@pytest.mark.parametrize("gradient", [mfld.FullBatch(), mfld.Minibatch(7), mfld.SVRG(7, 5)], ids=repr)
@pytest.mark.parametrize("num_threads", [1, 3])
def test_networks_on_domains_run_in_the_core(gradient, num_threads, dtype, level, rng):
    """Directions on a sphere, bias on a circle, readouts in a box; frozen signs behind a sphere."""
    inputs, targets = rng.normal(size=(40, 3)), rng.normal(size=(40, 2))
    blocks = (mfld.Sphere(3), mfld.Torus(1, period=2.0), mfld.Box([-1.0] * 2, [1.5] * 2))
    for domain, readout in ((blocks, "linear"), (blocks[:2], "signs")):
        model = mfld.TwoLayerNetwork(3, 2, readout=readout, domain=domain)
        risk = mfld.EmpiricalRisk(
            model,
            inputs,
            targets,
            loss="half_squared",
            reference=references.Uniform(),
            sample_weight=rng.uniform(size=40),
        )
        options = {"step_size": 0.05, "temperature": 0.01, "gradient": gradient, "dtype": dtype}
        native = mfld.MFLD(60, num_threads=num_threads, **options).run(risk, 9, seed=3)
        step_by_step = mfld.MFLD(60, **options).run(InPython(risk), 9, seed=3)
        assert risk.native(np.dtype(dtype)) is not None
        assert_allclose(native.particles, step_by_step.particles, atol=300 * np.finfo(dtype).eps)
        assert_allclose(native.info.gradient_norm, step_by_step.info.gradient_norm, rtol=1e-4)
        assert np.abs(native.particles - native.algorithm.init(risk, 3).particles).max() > 0.1
        assert_allclose(np.linalg.norm(native.particles[:, :3], axis=1), 1, rtol=1e-6)


def test_a_model_refuses_a_domain_that_does_not_fit():
    with pytest.raises(ValueError, match="n_moving must be 3, the number of coordinates of the domain"):
        mfld.TwoLayerNetwork(3, domain=[mfld.Sphere(3)])
    model = mfld.TwoLayerNetwork(3, readout="fixed", bias=False, domain=[mfld.Sphere(3)])
    with pytest.raises(ValueError, match="reference must not be Gaussian on a domain"):
        mfld.EmpiricalRisk(model, np.ones((2, 3)), [1.0, 2.0], loss="squared", l2=0.1)
