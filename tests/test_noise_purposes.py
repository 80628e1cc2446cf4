"""No two purposes share random numbers: every block of the generator is drawn for one thing only.

A spy on the core writes down the counters that each call encrypts, from its arguments and the layout in `mfld.noise`,
with who asked for them. It is told what happens, one thing after the other, all with the default seed.
"""

import functools
import itertools
import math
import sys
from collections import defaultdict

import numpy as np
import pytest

import mfld
from mfld import _core, certificates, noise

STREAMS = noise.STREAMS
NOT_ASKING = {"mfld.noise", __name__}  # modules that draw for others


def blocks(n_columns, dtype):
    return range(-(-n_columns // {"float32": 4, "float64": 2}[np.dtype(dtype).name]))


class Spy:
    """The core; ``drawn`` has for each counter, (key, particle, block, stream, step, population), who drew it."""

    def __init__(self, backend):
        self._backend, self.drawn, self.stage = backend, defaultdict(set), ""

    def __getattr__(self, name):
        member, counters = getattr(self._backend, name), getattr(type(self), f"_of_{name}", None)
        if counters is None:
            return member

        @functools.wraps(member)
        def called(*arguments, **options):
            frame = sys._getframe(1)
            while frame.f_globals["__name__"] in NOT_ASKING:
                frame = frame.f_back
            for purpose, counter in counters(*arguments, **options):
                self.drawn[counter].add((self.stage, frame.f_globals["__name__"], frame.f_code.co_name, purpose))
            return member(*arguments, **options)

        return called

    @staticmethod
    def _of_normals(key, step, n, p, dtype, stream, population, threads, members=(), first=0):
        shape = itertools.product(range(math.prod(members)), range(first, first + n), blocks(p, dtype))
        return [("", (key, m, b, stream, step, population + e)) for e, m, b in shape]

    @staticmethod
    def _of_uniforms(key, step, n, p, dtype, stream, population, threads, members=(), first=0):
        particles = range(first, first + n)
        return [("", (key, m, b, stream, step, population)) for m in particles for b in blocks(p, "float64")]

    @staticmethod
    def _of_batch(key, step, n, batch_size, population=0):
        return [("", (key, t, 0, STREAMS["batch"], step, population)) for t in range(batch_size)]

    @staticmethod
    def _of_particle_batches(key, step, n, batch_size, n_particles, population, threads):
        pairs = itertools.product(range(n_particles), range(batch_size))
        return [("", (key, m, 1 + t, STREAMS["batch"], step, population)) for m, t in pairs]

    @staticmethod
    def _of_philox(counter, key):
        particle, word1, low, high = counter
        step, population = low | (high & 0xFFFF) << 32, high >> 16
        return [("", (key[0] | key[1] << 32, particle, word1 & 0xFFFFFF, word1 >> 24, step, population))]

    @staticmethod
    def _moves(particles, n_moving, key, step, population, first=0):
        members, numbers = range(math.prod(particles.shape[:-2])), range(first, first + particles.shape[-2])
        shape = itertools.product(members, numbers, blocks(n_moving, particles.dtype))
        return [("move", (key, m, b, STREAMS["move"], step, population + e)) for e, m, b in shape]

    @staticmethod
    def _of_affine(particles, gradient, n_moving, coefficients, key, step, population, threads, domain=None, first=0):
        return Spy._moves(particles, n_moving, key, step, population, first)

    @staticmethod
    def _of_baoab(particles, v, gradient, closing, n_moving, coefficients, key, step, population, threads, first=0):
        return [] if closing else Spy._moves(particles, n_moving, key, step, population, first)

    @staticmethod
    def _of_accept(particles, *arguments, first=0):
        key, step, population, _ = arguments[-4:]
        numbers = range(first, first + len(particles))
        return [("accept", (key, m, 0, STREAMS["acceptance"], step, population)) for m in numbers]

    @staticmethod
    def _of_advance(network, loss, particles, inputs, *arguments):
        n_steps, keys, first, population = arguments[5:9]
        found = []
        for key, k in itertools.product(keys, range(n_steps)):
            found += Spy._moves(particles[0], particles.shape[2], key, first + k, population)
            found += [("batch", counter) for _, counter in Spy._of_batch(key, first + k, 0, len(inputs), population)]
        return found


@pytest.fixture
def spy(monkeypatch):
    spy = Spy(_core.backend)
    monkeypatch.setattr(_core, "backend", spy)
    return spy


SAME = [
    # Drawn again for the same thing: the gradient that a step used, and its loss.
    {"estimate", "loss", "draw_batch"},
    # Initial particles: the moving coordinates are drawn again, at another scale.
    {"draw", "_reference_sample", "initial_particles"},
]


def assert_apart(spy):
    assert len(spy.drawn) > 10
    shared = set()
    for who in spy.drawn.values():
        stages, functions = {stage for stage, *_ in who}, {function for _, _, function, _ in who}
        if len(who) > 1 and not (len(stages) == 1 and any(functions <= same for same in SAME)):
            shared.add(tuple(sorted(who)))
    assert not shared


INPUTS = np.random.default_rng(0).uniform(-1, 1, (12, 2))
SIGNS = np.where(INPUTS[:, 0] > 0, 1.0, -1.0)


def risk(readout="bounded"):
    return mfld.EmpiricalRisk(mfld.TwoLayerNetwork(2, readout=readout), INPUTS, SIGNS, loss="logistic", l2=0.05)


def quartic(**options):
    space = options or {"n_coordinates": 4}
    return mfld.Potential(lambda x: x**3, lambda x: np.sum(x**4, axis=1) / 4, **space)


class Chain(mfld.Objective):
    """Five members, each in a well of its own."""

    space = mfld.Space(4)
    members = (5,)

    def loss(self, measure):
        return float(np.sum(self.cloud(measure).particles ** 2) / 2)

    def loss_gradient(self, measure, batch=None):
        return self.cloud(measure).particles.copy()

    def first_variation(self, measure):
        raise NotImplementedError


def stream():
    def sample(step, n_rows):
        inputs = noise.normals(0, step, n_rows, 2, dtype="float64", stream="data")
        return inputs, np.tanh(inputs[:, 0])

    return mfld.StreamRisk(mfld.TwoLayerNetwork(2, readout="bounded"), sample, loss="squared", l2=0.05, capacity=100)


given = {"step_size": 0.01, "temperature": 0.05}
langevin = functools.partial(mfld.MFLD, 40, **given)
RUNS = {
    "native": (risk, langevin(gradient=mfld.SVRG(4, 3))),
    "automatic": (risk, mfld.MFLD(40, temperature=0.05, gradient=mfld.Minibatch(4))),
    "automatic with members": (Chain, mfld.MFLD(5, temperature=0.05)),
    "baoab with members": (Chain, mfld.MFLD(5, **given, dynamics=mfld.Underdamped(1.0))),
    "obabo": (risk, langevin(dynamics=mfld.Underdamped(1.0, "obabo"))),
    "frozen force, minibatch": (
        risk,
        langevin(dynamics=mfld.Underdamped(1.0, "frozen_force"), gradient=mfld.Minibatch(4)),
    ),
    "preconditioned, smoothed": (
        risk,
        langevin(dynamics=mfld.Preconditioned(), gradient=mfld.Smoothed(0.1, mfld.Minibatch(4))),
    ),
    "per particle": (risk, langevin(gradient=mfld.PerParticleMinibatch(4))),
    "mala": (quartic, langevin(dynamics=mfld.MALA())),
    "tempering": (quartic, langevin(dynamics=mfld.ContinuousTempering())),
    "general": (quartic, langevin(dynamics=mfld.General(np.eye(4)))),
    "frozen signs": (functools.partial(risk, "signs"), langevin()),
    "on a box": (functools.partial(quartic, space=mfld.Space(domain=[mfld.Box([0.0] * 4, [1.0] * 4)])), langevin()),
    "stream": (stream, langevin(gradient=mfld.Minibatch(4))),
    "replicates": (risk, langevin(n_replicates=3)),
    "pda": (risk, mfld.PDA(40, **given, inner_steps=3, batch_size=5)),
    "pda of a stream": (stream, mfld.PDA(40, **given, inner_steps=3, batch_size=5)),
    "psdca": (risk, mfld.PSDCA(80, temperature=0.05, refresh_every=4)),
    "psdca at random": (risk, mfld.PSDCA(80, temperature=0.05, refresh_every=4, order="random")),
    "psdca, frozen signs": (functools.partial(risk, "signs"), mfld.PSDCA(80, temperature=0.05, refresh_every=4)),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_and_what_follows(name, spy):
    problem, solver = RUNS[name]
    spy.stage = "run"
    result = solver.run(problem(), 5)
    spy.stage = "certificate"
    dual = -0.1 * SIGNS
    for readout in ("bounded", "signs"):
        mfld.certificate(risk(readout), dual, 0.1, n_chains=64, most_moves=192)
    spy.stage = "log partition"
    certificates.log_partition(risk(), dual, 0.1, n_chains=16, n_moves=2)
    spy.stage = "resample"
    mfld.resample(mfld.Cloud(result.state.clouds["mu"].particles.reshape(-1, result.objective.n_coordinates)))
    assert_apart(spy)


def test_the_spy_finds_what_is_shared(spy):
    for spy.stage in ("one", "other"):
        noise.normals(0, 3, 5, 4)
    noise.normals(0, 4, 50, 4)
    with pytest.raises(AssertionError):
        assert_apart(spy)


def test_populations_beside_the_clouds():
    own = list(noise.POPULATIONS.values())
    assert len(set(own)) == len(own)
    assert max(own) == 2**16 - 1
    last = noise.Place.of(0).member(min(own) - 1)
    assert last.population == min(own) - 1
    with pytest.raises(ValueError, match="members of all clouds must be at most"):
        last.member(1)
