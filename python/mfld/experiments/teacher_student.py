"""A ReLU teacher on the sphere, and students that are to recover it.

Sums and means: papers on this setting write a network as a *sum* of M neurons, with a ridge on all of them and steps of
its plain gradient. In the mean-field convention of this library the same network has the output scale M, and

==================  ==================  ==========================
quantity            sum convention      here
==================  ==================  ==========================
network             sum_j a_j s(w_j.x)  E_mu h, h = M a s(w.x)
ridge               lambda              ``l2 = M lambda``
step size           eta                 ``step_size = eta / M``
temperature         1 / beta            ``temperature = M / beta``
==================  ==================  ==========================

make the two updates the same, particle by particle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mfld import _core, noise, validation
from mfld.algorithms import MFLD, TwoPhase
from mfld.algorithms.plateau import StopOnPlateau
from mfld.models import TwoLayerNetwork
from mfld.objectives import EmpiricalRisk
from mfld.validation import FloatArray

_DATA = 7  # number of the noise stream of data


@dataclass(frozen=True, eq=False)
class TeacherStudent:
    """A teacher ``y = sum_j a_j max(w_j.x, 0)`` with inputs uniform on the sphere ``|x| = 1``.

    Attributes
    ----------
    weights : ndarray, shape (n_teachers, n_features)
        Rows w_j: orthonormal.
    readout : ndarray, shape (n_teachers,)
        The a_j: +1 and -1 in turn.
    inputs : ndarray, shape (n_samples, n_features)
    targets : ndarray, shape (n_samples,)
        Without noise.
    """

    weights: FloatArray
    readout: FloatArray
    inputs: FloatArray
    targets: FloatArray

    def student(self, width: int) -> TwoLayerNetwork:
        """A network that is the sum of ``width`` ReLU neurons, without bias: particles are (w, a)."""
        n_features = self.inputs.shape[1]
        return TwoLayerNetwork(n_features, activation="relu", bias=False, output_scale=float(width))

    def risk(self, width: int, ridge: float = 0.0) -> EmpiricalRisk:
        """``(1 / n) sum_i (y_i - f(x_i))**2 + ridge sum_j (a_j**2 + |w_j|**2)`` of a student in the sum convention."""
        ridge = validation.real("ridge", ridge, non_negative=True)
        return EmpiricalRisk(self.student(width), self.inputs, self.targets, loss="squared", l2=width * ridge)

    def solver(
        self,
        width: int,
        *,
        step_sizes: tuple[float, float],
        inverse_temperature: float,
        switch: int | StopOnPlateau,
        dtype: str = "float64",
        num_threads: int | None = None,
    ) -> TwoPhase:
        """Two-phase training as the source writes it: all arguments in the sum convention.

        Parameters
        ----------
        width : int
            M, the neurons of the student.
        step_sizes : pair of float
            eta of exploration and of descent.
        inverse_temperature : float
            beta of exploration.
        switch : int or StopOnPlateau
        dtype : {"float32", "float64"}
        num_threads : int, optional
            As in `MFLD`.
        """
        explore, descend = (validation.real("step_sizes", eta, positive=True) / width for eta in step_sizes)
        temperature = width / validation.real("inverse_temperature", inverse_temperature, positive=True)
        return TwoPhase(
            MFLD(width, step_size=explore, temperature=temperature, dtype=dtype, num_threads=num_threads),
            MFLD(width, step_size=descend, temperature=0.0, l2=0.0, dtype=dtype, num_threads=num_threads),
            switch=switch,
        )

    def population_risk(self, particles: ArrayLike) -> float:
        """``E (f(x) - y)**2`` of a student over the sphere, in closed form.

        With theta the angle of two vectors, ``E max(u.x, 0) max(v.x, 0) = |u| |v| (sin theta + (pi - theta) cos theta)
        / (2 pi n_features)``. Source: Cho, Saul 2009, "Kernel methods for deep learning", whose Gaussian inputs have
        ``E |x|**2 = n_features`` and are otherwise the same.

        Parameters
        ----------
        particles : array_like, shape (width, n_features + 1)

        Raises
        ------
        TypeError, ValueError
            If the particles have the wrong shape, are no array of reals, or are not finite.
        """
        particles = validation.array("particles", particles, np.float64)
        d = self.inputs.shape[1]
        validation.shape("particles", particles, ("width", d + 1), "(weights, readout)")
        vectors = np.concatenate([particles[:, :d], self.weights])
        signed = np.concatenate([particles[:, d], -self.readout])
        norms = _norms(vectors)
        directions = vectors / np.where(norms > 0, norms, 1)[:, np.newaxis]
        # The angle from both chords: its cosine alone would lose half of the digits where neurons have converged.
        apart = _norms(directions[:, np.newaxis] - directions)
        together = _norms(directions[:, np.newaxis] + directions)
        angle = 2 * np.arctan2(apart, together)
        kernel = np.outer(norms, norms) * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi * d)
        return max(0.0, float(np.sum(signed[:, np.newaxis] * kernel * signed)))


def teacher_student(n_features: int = 5, n_teachers: int = 3, n_samples: int = 500, seed: int = 0) -> TeacherStudent:
    """Draw a teacher and its samples.

    Parameters
    ----------
    n_features : int
        At least 2.
    n_teachers : int
        At most n_features.
    n_samples : int
    seed : int

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Notes
    -----
    Source: Akiyama, Suzuki 2022, "Excess risk of two-layer ReLU neural networks in teacher-student settings and its
    superiority to kernel methods".

    Examples
    --------
    >>> from mfld import experiments
    >>> setting = experiments.teacher_student(n_features=3, n_teachers=2, n_samples=200)
    >>> solver = setting.solver(20, step_sizes=(0.5, 1.0), inverse_temperature=1e6, switch=3000)
    >>> result = solver.run(setting.risk(20, ridge=1e-2), n_steps=5000, record_every=1000)
    >>> setting.population_risk(result.particles) < 1e-5
    True
    """
    n_features = validation.integer("n_features", n_features, 2)
    n_teachers = validation.integer("n_teachers", n_teachers, 1, n_features)
    n_samples = validation.integer("n_samples", n_samples, 1)
    draws = _normals(seed, n_features + n_samples, n_features)
    weights = _orthonormal(draws[:n_teachers])
    inputs = draws[n_features:]
    inputs = inputs / _norms(inputs)[:, np.newaxis]
    readout = np.where(np.arange(n_teachers) % 2 == 0, 1.0, -1.0)
    targets = np.zeros(n_samples)
    for w, a in zip(weights, readout, strict=True):
        targets += a * np.maximum(np.sum(inputs * w, axis=1), 0)
    return TeacherStudent(weights, readout, inputs, targets)


def _normals(seed: int, n_rows: int, n_columns: int) -> FloatArray:
    """Standard normals for data: of a stream of their own, so that no run draws the same numbers."""
    backend, dtype = _core.backend, np.dtype(np.float64)
    return backend.normals(noise.key(seed), 0, n_rows, n_columns, dtype, _DATA, 0, backend.max_threads())


# Sums in NumPy's own fixed order: those of BLAS and LAPACK depend on the number of threads.


def _norms(vectors: FloatArray) -> FloatArray:
    """Euclidean norms along the last axis."""
    norms: FloatArray = np.sqrt(np.sum(vectors**2, axis=-1))
    return norms


def _orthonormal(vectors: FloatArray) -> FloatArray:
    """Rows made orthonormal one after the other (Gram-Schmidt)."""
    rows = np.empty_like(vectors)
    for k in range(len(rows)):
        vector = vectors[k]
        for _ in range(2):  # what rounding leaves after once is gone after twice
            for row in rows[:k]:
                vector = vector - np.sum(row * vector) * row
        rows[k] = vector / _norms(vector)
    return rows
