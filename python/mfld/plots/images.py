"""Grey images side by side, still and moving."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from mfld import extras
from mfld.files import replacing
from mfld.plots import style


def pictures(images: np.ndarray, title: str = "") -> Any:
    """Grey pictures side by side, ten in a row.

    Parameters
    ----------
    images : ndarray, shape (n, height, width)
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    figure = style.figure(5, 0.5 * math.ceil(len(images) / 10) + 0.4)
    axes = figure.subplots(1, 1)
    axes.imshow(_mosaic(images), cmap="gray_r", interpolation="nearest")
    axes.axis("off")
    figure.suptitle(title, fontsize=9)
    return figure


def animation(frames: Sequence[np.ndarray], path: str | os.PathLike[str]) -> None:
    """Write an animated GIF of grey pictures, each frame of shape (n, height, width); the last one stays a while.

    Raises
    ------
    ImportError
        If matplotlib, with the Pillow that it brings, is not installed.
    """
    image = extras.library("PIL.Image", "plot", "an animation")
    low, high = float(np.min(frames[-1])), float(np.max(frames[-1]))
    tiles = [np.clip((_mosaic(frame) - low) / ((high - low) or 1.0), 0, 1) for frame in frames]
    enlarged = [np.kron((255 * (1 - tile)).astype(np.uint8), np.ones((4, 4), np.uint8)) for tile in tiles]
    images = [image.fromarray(each) for each in enlarged]
    with replacing(path) as file:
        durations = [100] * (len(images) - 1) + [2000]
        images[0].save(file, format="GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)


def _mosaic(images: np.ndarray, n_columns: int = 10) -> np.ndarray:
    """Pictures in rows of ten with a white pixel between them, shape (height, width)."""
    n, height, width = images.shape
    columns = min(n, n_columns)
    whole = np.zeros((math.ceil(n / columns), height + 1, columns, width + 1))
    for k, image in enumerate(images):
        whole[k // columns, :height, k % columns, :width] = image
    return whole.reshape(whole.shape[0] * (height + 1), columns * (width + 1))
