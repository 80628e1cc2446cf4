"""Quantities to record: functions of a state for ``run(record=...)`` and for the callbacks that stop a run."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from mfld import validation
from mfld.algorithms import Algorithm
from mfld.certificates import certificate
from mfld.diagnostics import ksd, sliced_wasserstein, wasserstein
from mfld.kernels import InverseMultiquadric, Kernel
from mfld.models import Model
from mfld.objectives import EmpiricalRisk, MeanFieldGAN, Objective
from mfld.objectives.stein import check_stein
from mfld.state import State

Quantity: TypeAlias = Callable[[State], ArrayLike]
"""A function of the state; its value is a number or an array of always the same shape."""


def loss(objective: Objective, num_threads: int | None = None) -> Quantity:
    """``U(mu)``, the objective without ridge and entropy, at the particles of the state.

    With the risk on other data it is the loss on a validation set. ``num_threads`` is by default that of the objective,
    and never changes a value.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> from mfld import quantities
    >>> inputs = np.linspace(-2, 2, 60)[:, np.newaxis]
    >>> model = mfld.TwoLayerNetwork(n_features=1)
    >>> train, test = (
    ...     mfld.EmpiricalRisk(model, inputs[rows], np.sin(inputs[rows, 0]), loss="squared")
    ...     for rows in (slice(0, None, 2), slice(1, None, 2))
    ... )
    >>> solver = mfld.MFLD(n_particles=100, step_size=0.2, temperature=1e-5)
    >>> result = solver.run(train, n_steps=500, record={"test_loss": quantities.loss(test)})
    >>> bool(result.history["test_loss"][-1] < 0.05)
    True
    """
    validation.instance("objective", objective, Objective, "an Objective")
    if num_threads is not None:
        objective = objective.on_threads(validation.num_threads(num_threads))
    return lambda state: objective.loss(state.measure)


def ridge(objective: Objective) -> Quantity:
    """``l2 * E_mu |theta|**2`` at the particles of the state, with the l2 of the objective.

    Examples
    --------
    >>> import mfld
    >>> from mfld import quantities
    >>> well = mfld.Potential(lambda x: x, n_coordinates=1, l2=0.5)
    >>> solver = mfld.MFLD(n_particles=2, step_size=0.1, temperature=0.0)
    >>> quantities.ridge(well)(solver.init(well, particles=[[0.0], [2.0]]))
    1.0
    """
    validation.instance("objective", objective, Objective, "an Objective")
    return lambda state: objective.ridge(state.measure)


def predictions(model: Model, inputs: ArrayLike, num_threads: int | None = None) -> Quantity:
    """Predictions of a model on some inputs: shape (n,), or (n, n_outputs), for each record.

    Examples
    --------
    >>> import mfld
    >>> from mfld import quantities
    >>> model = mfld.TwoLayerNetwork(n_features=1)
    >>> risk = mfld.EmpiricalRisk(model, [[-1.0], [1.0]], [-1.0, 1.0], loss="squared")
    >>> solver = mfld.MFLD(n_particles=10, step_size=0.1, temperature=0.0)
    >>> record = {"at zero and one": quantities.predictions(model, [[0.0], [1.0]])}
    >>> solver.run(risk, n_steps=20, record_every=5, record=record).history["at zero and one"].shape
    (4, 2)
    """
    validation.instance("model", model, Model, "a Model, like a TwoLayerNetwork")
    checked = validation.array("inputs", inputs)
    validation.shape("inputs", checked, ("n", model.n_features), "(number, n_features of the model)")
    checked = validation.frozen(checked)
    return lambda state: model.predict(state.measure.particles, checked, state.measure.weights, num_threads)


def score(risk: EmpiricalRisk) -> Quantity:
    """How good predictions are on the data of a risk: a number of at most 1.

    For losses of signs or classes it is the share of the samples that are predicted rightly, else the coefficient of
    determination ``1 - sum (y - u)**2 / sum (y - mean y)**2``. Samples count with their weights.

    Raises
    ------
    TypeError
        If it is no risk, or its loss is not one of the library: the kind of its targets is then not known.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> from mfld import quantities
    >>> model = mfld.TwoLayerNetwork(n_features=1, readout="fixed", activation="identity", bias=False)
    >>> risk = mfld.EmpiricalRisk(model, [[-2.0], [-1.0], [1.0], [2.0]], [-1, 1, 1, 1], loss="logistic")
    >>> solver = mfld.MFLD(n_particles=1, step_size=0.1, temperature=0.0)
    >>> quantities.score(risk)(solver.init(risk, particles=[[1.0]]))
    0.75
    """
    validation.instance("risk", risk, EmpiricalRisk, "an EmpiricalRisk")
    kind = risk.loss_function.targets
    if kind is None:
        raise TypeError(f"risk must have a loss of the library to be scored, got {validation.show(risk.loss_function)}")

    def measure_score(state: State) -> float:
        u = risk.predict(state.measure, risk.inputs).astype(np.float64)
        u, y = u.reshape(len(u), -1), risk.targets.astype(np.float64)
        if kind == "class":
            return float(np.average(np.argmax(u, axis=1) == y[:, 0], weights=risk.sample_weight))
        if kind == "sign":
            return float(np.average(np.mean(np.where(u > 0, 1, -1) == y, axis=1), weights=risk.sample_weight))
        centre = np.average(y, axis=0, weights=risk.sample_weight)
        errors, spread = (
            float(np.average(np.sum((y - at) ** 2, axis=1), weights=risk.sample_weight)) for at in (u, centre)
        )
        return 1 - errors / spread if spread > 0 else float("nan")

    return measure_score


def gap(algorithm: Algorithm, risk: EmpiricalRisk, temperature: float, **options: Any) -> Quantity:
    """Duality gap of the dual variables of a state, and its upper bound: shape (2,) for each record.

    Both are NaN where there is no certificate; `mfld.certificate` says what it certifies, and `mfld.plots.gap` draws
    it. The dual variables are those of the algorithm, or else the derivatives at the cloud: see `Algorithm.dual`.

    Parameters
    ----------
    algorithm : Algorithm
    risk, temperature, **options
        As in `mfld.certificate`: confidence, tolerance, number of chains; the number of threads is by default that of
        the algorithm.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> from mfld import quantities
    >>> inputs = np.linspace(-2, 2, 20)[:, np.newaxis]
    >>> model = mfld.TwoLayerNetwork(n_features=1, readout="fixed", bias=False)
    >>> risk = mfld.EmpiricalRisk(model, inputs, np.sign(inputs[:, 0]), loss="logistic", l2=0.1)
    >>> solver = mfld.PSDCA(2000, temperature=0.1)
    >>> record = {"gap": quantities.gap(solver, risk, temperature=0.1, n_chains=64)}
    >>> history = solver.run(risk, 8, record_every=range(9), record=record).history
    >>> history["gap"].shape, bool(history["gap"][-1, 1] < history["gap"][0, 0] / 10)
    ((9, 2), True)
    """
    validation.instance("algorithm", algorithm, Algorithm, "an Algorithm")
    validation.instance("risk", risk, EmpiricalRisk, "an EmpiricalRisk")

    options.setdefault("num_threads", algorithm.num_threads)

    def measured(state: State) -> ArrayLike:
        found = certificate(risk, algorithm.dual(risk, state), temperature, **options)
        return [found.gap, found.upper]

    return measured


def gap_bound(
    algorithm: Algorithm, risk: EmpiricalRisk, temperature: float, confidence: float = 0.999, **options: Any
) -> Callable[[State], float]:
    """Upper bound of the certificate of a state, ``inf`` where there is none: for `mfld.StopWhen`.

    Whoever stops at the first bound that is low enough has looked several times, and each look may be wrong. The
    ``1 - confidence`` that is allowed is therefore spent over the looks: look k = 1, 2, ... of a function that this
    returns has ``6 / (pi k)**2`` of it, whose sum over all k is 1. Hence all bounds hold together at the confidence,
    and so does the one at which a run stops.

    Parameters
    ----------
    algorithm, risk, temperature, **options
        As in `gap`.
    confidence : float
        With which all bounds hold.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> from mfld import quantities
    >>> inputs = np.linspace(-2, 2, 20)[:, np.newaxis]
    >>> model = mfld.TwoLayerNetwork(n_features=1, readout="fixed", bias=False)
    >>> risk = mfld.EmpiricalRisk(model, inputs, np.sign(inputs[:, 0]), loss="logistic", l2=0.1)
    >>> solver = mfld.PSDCA(500, temperature=0.1)
    >>> bound = quantities.gap_bound(solver, risk, temperature=0.1, n_chains=64)
    >>> enough = mfld.StopWhen(lambda state, info: bound(state) < 0.01, every=1)
    >>> solver.run(risk, n_steps=100, callbacks=[enough]).state.step < 10
    True
    """
    confidence = validation.real("confidence", confidence)
    if not 0.5 <= confidence < 1:
        raise ValueError(f"confidence must be at least 0.5 and below 1, got {confidence}")
    gap(algorithm, risk, temperature, **options)  # which checks them
    looks = itertools.count(1)

    def bound(state: State) -> float:
        spent = (1 - confidence) * 6 / (math.pi * next(looks)) ** 2
        _, upper = np.asarray(gap(algorithm, risk, temperature, confidence=1 - spent, **options)(state))
        return math.inf if math.isnan(upper) else float(upper)

    return bound


def kernel_gradient_discrepancy(objective: Objective, temperature: float, kernel: Kernel | None = None) -> Quantity:
    """Squared kernel gradient discrepancy of the particles of a state: its V- and its U-statistic, shape (2,).

    It is the kernel Stein discrepancy of the cloud mu from its own proximal Gibbs law, of density
    ``exp(-dF/dmu(mu) / temperature)``, which is mu itself at the minimiser of ``F(mu) + temperature * Ent(mu)`` and
    nowhere else: a certificate from gradients alone, for any objective and any cloud. At N independent draws from the
    minimiser the V-statistic is about ``E u(X, X) / N``, as small as it gets, and the U-statistic 0 on average. It
    costs N**2 values of the kernel. Source: Chazal, Kanagawa, Shen, Korba, Oates 2025, "A computable measure of
    suboptimality for entropy-regularised variational objectives".

    Parameters
    ----------
    objective : Objective
        On Euclidean space or a torus, of a single member.
    temperature : float
        Positive: that of the problem.
    kernel : Kernel, optional
        Of the moving coordinates, with two derivatives. Default: an inverse multiquadric of length 1. For values that
        may be compared keep the length scale a number.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; of a state, if a gradient is not finite.

    Examples
    --------
    >>> import mfld
    >>> from mfld import quantities
    >>> well = mfld.potentials.Gaussian([0.0])
    >>> kgd = quantities.kernel_gradient_discrepancy(well, temperature=1.0)
    >>> solver = mfld.MFLD(200, step_size=0.1, temperature=1.0)
    >>> history = solver.run(well, 100, particles=[[3.0]] * 200, record={"kgd": kgd}, record_every=[0, 100]).history
    >>> bool(history["kgd"][0, 0] > 4), bool(history["kgd"][-1, 0] < 0.1)
    (True, True)
    """
    validation.instance("objective", objective, Objective, "an Objective")
    temperature = validation.real("temperature", temperature, positive=True)
    chosen = InverseMultiquadric(1.0) if kernel is None else validation.instance("kernel", kernel, Kernel, "a Kernel")
    check_stein(chosen, objective.space)
    chosen.check_derivatives(2)
    if objective.members:
        raise ValueError(f"objective must have a single member, got {objective.members}")

    return lambda state: ksd(state.measure, objective, temperature, chosen)


def free_energy(algorithm: Algorithm, risk: EmpiricalRisk, temperature: float, **options: Any) -> Quantity:
    """``P(p[g]) = F + temperature * Ent`` of the Gibbs measure of a state's dual variables, and bounds of the optimum.

    The objective of a cloud is infinite, since atoms have no entropy; that of the Gibbs measure p[g] is the sum of the
    dual value D(g) and the gap. Shape (3,) for each record: P(p[g]), and the lower and the upper bound of the optimum,
    ``Certificate.optimum``; NaN where there is no certificate.

    Parameters
    ----------
    algorithm, risk, temperature, **options
        As in `gap`.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> from mfld import quantities
    >>> inputs = np.linspace(-2, 2, 20)[:, np.newaxis]
    >>> model = mfld.TwoLayerNetwork(n_features=1, readout="fixed", bias=False)
    >>> risk = mfld.EmpiricalRisk(model, inputs, np.sign(inputs[:, 0]), loss="logistic", l2=0.1)
    >>> solver = mfld.PSDCA(500, temperature=0.1)
    >>> record = {"free energy": quantities.free_energy(solver, risk, temperature=0.1)}
    >>> value, lower, upper = solver.run(risk, 10, record_every=10, record=record).history["free energy"][-1]
    >>> bool(lower < value < upper), bool(upper - lower < 0.05)
    (True, True)
    """
    validation.instance("algorithm", algorithm, Algorithm, "an Algorithm")
    validation.instance("risk", risk, EmpiricalRisk, "an EmpiricalRisk")
    options.setdefault("num_threads", algorithm.num_threads)

    def measured(state: State) -> ArrayLike:
        found = certificate(risk, algorithm.dual(risk, state), temperature, **options)
        return [found.dual_value + found.gap, *found.optimum]

    return measured


def seconds() -> Quantity:
    """Wall-clock seconds since this quantity was made: the one entry of a history that differs from run to run.

    Examples
    --------
    >>> import mfld
    >>> from mfld import quantities
    >>> well = mfld.Potential(lambda x: x, n_coordinates=1)
    >>> solver = mfld.MFLD(n_particles=10, step_size=0.1, temperature=1.0)
    >>> times = solver.run(well, n_steps=30, record={"seconds": quantities.seconds()}).history["seconds"]
    >>> bool(0 < times[0] <= times[-1])
    True
    """
    start = time.perf_counter()
    return lambda state: time.perf_counter() - start


def distance_to_data(
    game: MeanFieldGAN,
    held_out: ArrayLike,
    n_samples: int = 1000,
    order: float = 1,
    n_directions: int = 100,
    seed: int = 0,
) -> Quantity:
    """Wasserstein distance between points that the generator makes and rows that it has not seen.

    In one dimension exactly, in several the sliced distance. Latent points and directions are the same at each record.
    Two samples of one law are at a distance too: compare with that of rows from rows. Of several replicates it has the
    shape (R,).

    Parameters
    ----------
    game : MeanFieldGAN
    held_out : array_like, shape (n, d)
    n_samples : int
        Points to make.
    order, n_directions, seed
        As in `mfld.diagnostics.sliced_wasserstein`; the seed is that of the latent points too.

    Examples
    --------
    >>> import mfld
    >>> from mfld import quantities
    >>> rows = mfld.noise.normals(0, 0, 200, 1, dtype="float64", stream="data")
    >>> game = mfld.MeanFieldGAN(mfld.TwoLayerNetwork(1), mfld.TwoLayerNetwork(1), rows[:100])
    >>> solver = mfld.DescentAscent(50, step_size=0.1, temperature=1e-3, gradient=mfld.Minibatch(32))
    >>> record = {"distance": quantities.distance_to_data(game, rows[100:])}
    >>> solver.run(game, n_steps=20, record_every=10, record=record).history["distance"].shape
    (2,)
    """
    validation.instance("game", game, MeanFieldGAN, "a MeanFieldGAN")
    rows = validation.array("held_out", held_out, np.float64)
    validation.shape("held_out", rows, ("n", game.critic.n_features), "(rows, columns of the data)")
    n_samples = validation.integer("n_samples", n_samples, 1)
    n_directions = validation.integer("n_directions", n_directions, 1)
    order, seed = validation.real("order", order, positive=True), validation.seed(seed)
    if order < 1:
        raise ValueError(f"order must be at least 1, got {order}")
    rows = validation.frozen(rows)

    def distance(state: State) -> ArrayLike:
        every = game.generate(state.clouds["generator"], n_samples, seed)
        if rows.shape[1] == 1:
            found = [wasserstein(made, rows, order) for made in every]
        else:
            found = [float(sliced_wasserstein(made, rows, order, n_directions, seed)) for made in every]
        return found[0] if len(found) == 1 else np.array(found)

    return distance
