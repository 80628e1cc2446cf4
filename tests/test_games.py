"""Several clouds: a stub of a game runs, is kept, goes on and repeats like everything else."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mfld
from mfld import checkpoint, noise
from mfld.stepping import Plan, steps


class Means(mfld.Game):
    """x of two dimensions minimises, y of one maximises ``E x_1 E y - E x_2``, each within a ridge."""

    players = ("x", "y")

    def facing(self, name, clouds):
        if name == "x":
            slope = np.array([clouds["y"].particles.mean(), -1.0])
        else:
            slope = np.array([-clouds["x"].particles[:, 0].mean()])
        return mfld.Potential(
            lambda t: np.tile(slope, (len(t), 1)), lambda t: t @ slope, n_coordinates=len(slope), l2=0.5
        )


@dataclass(frozen=True)
class Simultaneous(mfld.Algorithm):
    """Descent of all players at once, one call of the steps for each: a stub of the algorithms for games."""

    sizes: dict
    step_size: float
    temperature: float
    dynamics: mfld.Dynamics
    n_replicates: int = 1

    def init(self, objective, seed=0, particles=None, *, replica=0):
        space = {"x": mfld.Space(2), "y": mfld.Space(1)}
        clouds = {}
        for number, name in enumerate(objective.players):
            places = [noise.initial(seed, replica + r).member(number) for r in range(self.n_replicates)]
            clouds[name] = mfld.Cloud(np.stack([space[name].draw(place, self.sizes[name]) for place in places]))
        return mfld.State(clouds, step=0, seed=seed, replica=replica)

    def check(self, objective, state=None):
        assert isinstance(objective, mfld.Game)

    def advance(self, objective, state, n_steps=1):
        for _ in range(n_steps):
            moved, buffers, norms = {}, {}, []
            for name in objective.players:
                for r in range(state.n_replicates):
                    one = {other: mfld.Cloud(cloud.particles[r]) for other, cloud in state.clouds.items()}
                    faced = objective.facing(name, one)
                    plan = Plan(
                        np.array([[self.step_size]]),
                        np.array([[self.temperature]]),
                        np.array([[faced.l2]]),
                        mfld.FullBatch(),
                        self.dynamics,
                        (state.place(name, r),),
                    )
                    prefix = f"{name}."
                    own = {
                        k.removeprefix(prefix): v[r : r + 1] for k, v in state.buffers.items() if k.startswith(prefix)
                    }
                    own = own or {
                        k: v[np.newaxis]
                        for k, v in self.dynamics.start(one[name].particles, plan.at(0, faced.space)).items()
                    }
                    outcome = steps(faced, one[name].particles[np.newaxis], own, 1, plan)
                    if outcome.interrupt is not None:
                        raise outcome.interrupt
                    moved.setdefault(name, []).append(outcome.particles)
                    for k, v in outcome.buffers.items():
                        if k in self.dynamics.buffer_names:
                            buffers.setdefault(prefix + k, []).append(v)
                    norms.append(outcome.gradient_norm[0])
            clouds = {name: mfld.Cloud(np.concatenate(parts)) for name, parts in moved.items()}
            state = state.after(1, clouds, {k: np.concatenate(v) for k, v in buffers.items()})
        return state, mfld.Info(n_steps, gradient_norm=float(np.mean(norms)))


def contents(state):
    arrays = {name: cloud.particles for name, cloud in state.clouds.items()} | dict(state.buffers)
    return {name: (value.shape, value.tobytes()) for name, value in arrays.items()}


def solver(**arguments):
    usual = {"sizes": {"x": 40, "y": 70}, "step_size": 0.1, "temperature": 0.1, "dynamics": mfld.Overdamped()}
    return Simultaneous(**{**usual, **arguments})


@pytest.mark.parametrize("dynamics", [mfld.Overdamped(), mfld.Underdamped(1.0)], ids=["overdamped", "underdamped"])
def test_end_to_end(dynamics, tmp_path):
    game = Means()
    whole = solver(dynamics=dynamics).run(game, 30, seed=5)
    shapes = {name: cloud.particles.shape for name, cloud in whole.state.clouds.items()}
    assert shapes == {"x": (1, 40, 2), "y": (1, 70, 1)}
    path = tmp_path / "game.npz"
    checkpoint.run(solver(dynamics=dynamics), game, 11, seed=5, path=path)
    resumed = checkpoint.run(solver(dynamics=dynamics), Means(), 30, seed=5, path=path)
    assert contents(resumed.state) == contents(whole.state)
    assert tuple(resumed.state.clouds) == game.players
    together = solver(dynamics=dynamics, n_replicates=3).run(game, 30, seed=5)
    for r in range(3):
        alone = solver(dynamics=dynamics)
        one = alone.run(game, 30, state=alone.init(game, seed=5, replica=r))
        assert contents(together.state.replicate(r)) == contents(one.state)
    with pytest.raises(ValueError, match=r"the state has the clouds x, y: take one from \.clouds"):
        _ = whole.particles


def test_equilibrium_of_the_means():
    """Stationary: 2 l2 E x = (-E y, 1) and 2 l2 E y = E x_1, hence (0, 1) and 0; variances those of Euler's scheme."""
    result = solver(sizes={"x": 20_000, "y": 20_000}).run(Means(), 400, seed=1)
    x, y = (cloud.particles[0].astype(float) for cloud in result.state.clouds.values())
    variance = 0.1 / (1 - 0.1 / 2)  # the temperature over the curvature 2 l2 = 1
    error = np.sqrt(variance / 20_000)
    assert_allclose(x.mean(axis=0), [0, 1], atol=5 * 4 * error)  # the coupled means are an autoregression
    assert_allclose(y.mean(), 0, atol=5 * 4 * error)
    assert_allclose(x.var(axis=0), variance, rtol=5 * np.sqrt(2 / 20_000))
    assert_allclose(y.var(), variance, rtol=5 * np.sqrt(2 / 20_000))


def test_clouds_and_members_have_populations_of_their_own():
    particles = np.zeros((2, 3, 5, 4))
    state = mfld.State(
        {"mu": mfld.Cloud(particles), "nu": mfld.Cloud(particles[:, 0]), "xi": mfld.Cloud(particles)}, step=7, seed=3
    )
    places = {name: state.place(name) for name in state.clouds}
    assert [place.population for place in places.values()] == [0, 3, 4]
    assert {place.step for place in places.values()} == {7}
    assert state.place("nu", replicate=1).key == noise.key(3, 1)
    populations = [places["mu"].member(e).population for e in range(3)] + [3, *(4 + e for e in range(3))]
    draws = [noise.Place(state.key, 7, population).normals(5, 4) for population in populations]
    assert len(np.unique(np.concatenate(draws))) == 7 * 20
    with pytest.raises(ValueError, match="cloud must be one of mu, nu, xi; got 'chi'"):
        state.place("chi")
