"""From rows to a generator: the choices that `fit` makes.

* Columns are standardised, or principal components take their place (`Standardised`, `PrincipalAxes`).
* A two-layer network with ReLU learns the velocity by `Denoising`, times drawn evenly in ``arctan(sigma / alpha)``. In
  up to 8 coordinates it has 32 waves among its inputs (`random_waves`), which draw fine structure.
* Particles are trained by `MFLD` on mini-batches, with the preconditioned dynamics and a step size that falls to 0 like
  half a cosine; the temperature is small: it is there to keep particles apart, and not to be sampled at.
* Samples come from DPM-Solver++ in 30 steps on the tangent grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import validation
from mfld.algorithms import MFLD, Result
from mfld.diffusion.guidance import ClassifierFree
from mfld.diffusion.latent import Latent, PrincipalAxes, Standardised
from mfld.diffusion.likelihood import log_likelihood
from mfld.diffusion.samplers import Sampler
from mfld.diffusion.sampling import sample
from mfld.diffusion.scores import Score
from mfld.diffusion.training import Denoising, MeanFieldScore, random_waves
from mfld.dynamics import Preconditioned
from mfld.gradients import Minibatch
from mfld.schedules import Schedule, Steps, Values
from mfld.validation import FloatArray

_BATCH = 128
_STEP_SIZE, _LEAST = 0.1, 1e-4
_TEMPERATURE, _L2 = 1e-10, 1e-8
_SAMPLING_STEPS = 30
_WAVES, _MOST_WITH_WAVES = 32, 8


@dataclass(frozen=True)
class _HalfCosine(Schedule):
    initial: float
    n_steps: int

    def __call__(self, steps: Steps) -> Values:
        falling = (1 + np.cos(np.pi * np.minimum(steps, self.n_steps) / self.n_steps)) / 2
        return np.asarray(self.initial * (_LEAST + (1 - _LEAST) * falling))


@dataclass(frozen=True, eq=False)
class DiffusionModel:
    """Generator of rows: a score in a latent space.

    Attributes
    ----------
    score : MeanFieldScore
    latent : Latent
    classes : ndarray or None
        Labels that it knows, sorted.
    frequencies : ndarray or None
        Their shares of the rows.
    n_columns : int
        Of the rows.
    result : Result
        Of the training: its history has the loss.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import diffusion
    >>> rows = np.random.default_rng(0).normal(size=(200, 2))
    >>> model = diffusion.fit(rows, ["even", "odd"] * 100, n_particles=50, n_steps=100)
    >>> model.sample(3, label="odd").shape
    (3, 2)
    """

    score: MeanFieldScore
    latent: Latent
    classes: NDArray[np.generic] | None
    frequencies: FloatArray | None
    n_columns: int
    result: Result

    def sample(
        self,
        n_samples: int,
        label: object = None,
        *,
        guidance: float = 0.0,
        sampler: Sampler | str = "dpm-solver++",
        n_steps: int = _SAMPLING_STEPS,
        seed: int = 0,
        num_threads: int | None = None,
        callback: Callable[[FloatArray, int], Any] | None = None,
    ) -> FloatArray:
        """New rows, shape (n_samples, d), float64.

        Parameters
        ----------
        n_samples : int
        label : object or array_like, optional
            One of the classes, or one for each sample. By default rows of no particular label.
        guidance : float
            Weight of `ClassifierFree`; with a label only.
        sampler, n_steps, seed, num_threads
            As in `mfld.diffusion.sample`.
        callback : callable, optional
            ``callback(rows, k)`` after step k, with the rows as they are then.

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or out of range.
        FloatingPointError
            If a sample leaves the finite numbers.
        """
        n_samples = validation.integer("n_samples", n_samples, 1)
        guidance = validation.real("guidance", guidance)
        score: Score = self.score
        if label is not None:
            score = self.score.given(self._numbers(label, n_samples))
            if guidance:
                score = ClassifierFree(score, self.score, guidance)
        elif guidance:
            raise ValueError(f"guidance must be 0 without a label, got {guidance:g}")
        points = sample(
            score,
            n_samples,
            sampler=sampler,
            n_steps=n_steps,
            seed=seed,
            dtype="float32",
            num_threads=num_threads,
            callback=None if callback is None else lambda x, k: callback(self.latent.decode(x.astype(np.float64)), k),
        )
        with np.errstate(over="ignore"):
            rows = self.latent.decode(points.astype(np.float64))
        if not np.isfinite(rows).all():
            i, j = np.argwhere(~np.isfinite(rows))[0]
            raise FloatingPointError(f"sample {i} is not finite in column {j}: the data are near the largest numbers")
        return rows

    def log_likelihood(self, points: ArrayLike, n_steps: int = 60) -> FloatArray:
        """Log-density of the latent points of rows, shape (n,): see `mfld.diffusion.log_likelihood`."""
        rows = validation.array("points", points, np.float64)
        validation.shape("points", rows, ("n", self.n_columns), "to match the columns of the data")
        return log_likelihood(self.score, self.latent.encode(rows), n_steps=n_steps)

    def _numbers(self, label: object, n_samples: int) -> NDArray[np.int64]:
        if self.classes is None:
            raise ValueError(f"label must be None for a model without labels, got {validation.show(label)}")
        validation.unmasked("label", label)
        try:
            given = np.asarray(label)
        except ValueError as error:  # a ragged list
            raise ValueError(f"label must be one label or {n_samples}, one for each sample: {error}") from None
        if given.shape not in ((), (n_samples,)):
            raise ValueError(f"label must be one label or {n_samples}, one for each sample, got shape {given.shape}")
        places = {each: k for k, each in enumerate(self.classes.tolist())}
        for each in given.ravel().tolist():
            if not isinstance(each, (str, bool, int, float)) or each not in places:
                known = ", ".join(map(str, places))
                raise ValueError(f"label must be one of {known}, got {validation.show(each)}")
        numbers = [places[each] for each in given.ravel().tolist()]
        return np.array(numbers, np.int64) if given.ndim else np.full(n_samples, numbers[0], np.int64)


def fit(
    X: ArrayLike,
    y: ArrayLike | None = None,
    *,
    latent: Latent | int | None = None,
    n_particles: int = 500,
    n_steps: int = 3000,
    seed: int = 0,
    num_threads: int | None = None,
) -> DiffusionModel:
    """Generator that is trained on rows.

    Parameters
    ----------
    X : array_like, shape (n, d)
        Rows.
    y : array_like, shape (n,), optional
        Labels, all numbers or all texts, which rows can then be asked for.
    latent : Latent or int, optional
        Where the diffusion runs: a number stands for so many principal components. Default: standardised columns.
    n_particles : int
        Neurons.
    n_steps : int
        Of training, each on 128 noisy rows.
    seed : int
        Of the training.
    num_threads : int, optional
        It changes no number.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import diffusion
    >>> angles = np.random.default_rng(0).uniform(0, 2 * np.pi, 500)
    >>> ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    >>> new = diffusion.fit(ring, n_particles=200, n_steps=1000).sample(500)
    >>> bool(abs(np.linalg.norm(new, axis=1).mean() - 1) < 0.1)
    True
    """
    rows = validation.array("X", X, np.float64)
    validation.shape("X", rows, ("n", "d"))
    if latent is None or isinstance(latent, Latent):
        space = latent or Standardised()
    else:
        space = PrincipalAxes(validation.integer("latent", latent, 1, min(rows.shape)))
    space = space.fitted(rows)
    numbers, classes, frequencies = None, None, None
    if y is not None:
        classes, numbers = np.unique(_labels(y, len(rows)), return_inverse=True)
        frequencies = np.bincount(numbers) / len(rows)
    n_steps = validation.integer("n_steps", n_steps, 1)
    data = space.encode(rows).astype(np.float32)
    p, seed = data.shape[1], validation.seed(seed)
    waves = random_waves(_WAVES, p, seed=seed) if p <= _MOST_WITH_WAVES else None
    denoising = Denoising(data, labels=numbers, waves=waves, seed=seed)
    solver = MFLD(
        n_particles,
        step_size=_HalfCosine(_STEP_SIZE, n_steps),
        temperature=_TEMPERATURE,
        gradient=Minibatch(_BATCH),
        dynamics=Preconditioned(decay=0.99),
        num_threads=num_threads,
    )
    network = denoising.network()
    result = solver.run(denoising.stream(network, _L2), n_steps, seed, record_every=max(1, n_steps // 100))
    return DiffusionModel(denoising.score(network, result.measure), space, classes, frequencies, rows.shape[1], result)


def _labels(y: ArrayLike, n: int) -> NDArray[Any]:
    """Labels of n rows: all numbers, or all texts, which may be objects."""
    validation.unmasked("y", y)
    try:
        labels = np.asarray(y)
    except ValueError as error:  # a ragged list
        raise ValueError(f"y must be numbers or texts of shape ({n},) to match X: {error}") from None
    if labels.dtype.kind in "OU" and labels.shape == (n,):
        # A list in which there are texts is one of texts to NumPy, with numbers and nan as their names.
        each = np.asarray(y, dtype=object)
        texts = [isinstance(label, str) for label in each]
        if any(texts) and not all(texts):
            i = texts.index(not texts[0])
            raise TypeError(f"y must be all numbers or all texts, got {each[0]!r} and, at index {i}, {each[i]!r}")
        labels = np.asarray(each.tolist())
    if labels.shape != (n,) or labels.dtype.kind not in "biufU":
        raise ValueError(
            f"y must be numbers or texts of shape ({n},) to match X, got {labels.dtype} of shape {labels.shape}"
        )
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        i = int(np.argmin(np.isfinite(labels)))
        raise ValueError(f"y must have a label for each row, got {labels[i]} at index {i}")
    return labels
