"""Pictures of runs (need matplotlib: ``pip install 'mfld[plot]'``), a file for each subject."""

from mfld.plots.clouds import generated, moving
from mfld.plots.densities import bands, density, fokker_planck
from mfld.plots.images import animation, pictures
from mfld.plots.paths import control
from mfld.plots.predictions import calibration, residuals
from mfld.plots.runs import chaos, gap, losses, neurons, training
from mfld.plots.spikes import deconvolution
from mfld.plots.style import (
    COLOURS,
    check_format,
    colour,
    figure,
    ink,
    marker,
    open_axes,
    plain,
    save,
    settings,
    theme,
    ticks_at,
)

__all__ = [
    "COLOURS",
    "animation",
    "bands",
    "calibration",
    "chaos",
    "check_format",
    "colour",
    "control",
    "deconvolution",
    "density",
    "figure",
    "fokker_planck",
    "gap",
    "generated",
    "ink",
    "losses",
    "marker",
    "moving",
    "neurons",
    "open_axes",
    "pictures",
    "plain",
    "residuals",
    "save",
    "settings",
    "theme",
    "ticks_at",
    "training",
]
