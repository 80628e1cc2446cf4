"""Two-layer networks whose outer weights are the best ones for their neurons, at every step.

Training moves the positions w of the neurons alone, down

::

    J(eta) = min_f  sum_i s_i l(u_i, y_i) + (strength / 2) E_eta |f|**2,    u_i = E_eta f(w) phi(w, z_i)

with as many columns of f as the network has outputs: the limit of gradient descent whose outer weights are infinitely
faster than its neurons. Source: Takakura, Suzuki 2024, "Mean-field analysis on two-layer neural networks from a kernel
perspective".
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mfld import validation
from mfld.gradients import FullBatch, GradientEstimator
from mfld.models import TwoLayerNetwork
from mfld.objectives import Bilevel, EmpiricalRisk, SignedRisk
from mfld.objectives.base import Measure
from mfld.state import Cloud
from mfld.warm_start import WarmStart

_OF_STEPS = Bilevel(tolerance=1e-3)  # far below the noise of a step; the weights of the end are found to the last bits

READOUT = "bilevel"
"""How the fronts call it, among the readouts of networks."""

NETWORK_READOUT = "linear"
"""Readout of the networks that come out: their outer weights are coordinates of the neurons like others."""


def reduced(risk: EmpiricalRisk, strength: float) -> SignedRisk:
    """The risk of a network as one of the positions of its neurons, which have the best outer weights.

    Parameters
    ----------
    risk : EmpiricalRisk
        Of a `TwoLayerNetwork` with ``readout="linear"``; its ridge is that of the positions.
    strength : float
        Of the ridge of the outer weights, positive.

    Raises
    ------
    ValueError
        If the loss is not convex, or has no smooth derivative.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> from mfld import outer_weights
    >>> z = np.linspace(-2, 2, 30)[:, np.newaxis]
    >>> network = mfld.TwoLayerNetwork(1, readout="linear")
    >>> risk = mfld.EmpiricalRisk(network, z, np.sin(3 * z[:, 0]), loss="half_squared", l2=1e-4)
    >>> positions = outer_weights.reduced(risk, strength=1e-3)
    >>> end = mfld.MFLD(50, step_size=1.0, temperature=1e-6).run(positions, n_steps=200).measure
    >>> bool(risk.loss(outer_weights.neurons(positions, end)) < 0.01)
    True
    """
    network = risk.model
    assert isinstance(network, TwoLayerNetwork)  # by the fronts
    return SignedRisk(
        replace(network, readout="fixed", n_outputs=1),
        risk.inputs,
        risk.targets,
        loss=risk.loss_function,
        strength=strength,
        reduction=_OF_STEPS,
        l2=risk.l2,
        sample_weight=risk.sample_weight,
        n_outputs=network.n_outputs,
    ).on_threads(risk.num_threads)


def estimator(risk: SignedRisk) -> GradientEstimator:
    """The gradient estimator that steps of such a risk take: all rows, from the weights of the step before."""
    return WarmStart() if risk.iterates else FullBatch()


def neurons(risk: SignedRisk, measure: Measure) -> Cloud:
    """Neurons of the network with a linear readout: positions with the best outer weights behind them.

    Parameters
    ----------
    risk : SignedRisk
        From `reduced`.
    measure : Cloud or array_like, shape (N, n_coordinates)
        Of positions, all of which have a mass.

    Returns
    -------
    Cloud
    """
    cloud = risk.cloud(measure)
    n = len(cloud.particles)
    masses = np.full(n, 1 / n) if cloud.weights is None else cloud.weights
    weights = Bilevel().measure(risk, cloud).weights.reshape(n, -1) / masses[:, np.newaxis]
    particles = np.concatenate([cloud.particles, weights.astype(cloud.particles.dtype)], axis=1)
    return Cloud(validation.frozen(particles), cloud.weights)
