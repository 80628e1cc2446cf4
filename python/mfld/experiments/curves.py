"""Columns of a table as the points of curves."""

from __future__ import annotations

import itertools
import math

import numpy as np

from mfld.experiments.encoding import Encoding
from mfld.functional_data import Grid, PowerLaw, PrincipalComponents

DEFAULT = PowerLaw(2.0, basis=PrincipalComponents(whitened=True))
"""Covariance of weight functions that suits curves of any shape and unit: along the whitened principal components."""


def grid(encoding: Encoding) -> Grid:
    """The grid of the features: their names where these are numbers that increase, else equidistant from 0 to 1.

    Numbers that fall, like wave numbers, are taken negative: the covariances here do not tell directions apart.

    Raises
    ------
    ValueError
        If a column gives other features than its numbers.

    Examples
    --------
    >>> from mfld.experiments.curves import grid
    >>> from mfld.experiments.encoding import Encoding, Feature
    >>> spectra = Encoding((Feature("850"), Feature("852"), Feature("854.5")), "fat", ("850", "852", "854.5", "fat"))
    >>> grid(spectra)
    Grid(3 points from 850 to 854.5)
    """
    for feature in encoding.features:
        if feature.kind != "number" or feature.names != [feature.name]:
            raise ValueError(
                f"functional needs columns of numbers without gaps, which are the points of a curve: {feature.name!r} "
                "is none, leave it out with --drop, or its gaps with --missing drop"
            )
    names = encoding.feature_names
    try:
        points = [float(name) for name in names]
    except ValueError:
        points = []
    if points and points[0] > points[-1]:
        points = [-point for point in points]
    increasing = bool(points) and all(first < second for first, second in itertools.pairwise(points))
    usable = increasing and encoding.header and math.isfinite(points[-1] - points[0])
    return Grid(points if usable else np.linspace(0.0, 1.0, len(names)))
