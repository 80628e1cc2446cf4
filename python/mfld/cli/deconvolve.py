"""``mfld deconvolve``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfld import plots, validation
from mfld.cli.options import add_format, add_num_threads, checked, format_options, number
from mfld.cli.report import Report, check_output, csv_text
from mfld.deconvolution import Dirichlet, Gaussian, PointSpread, Sampled, default_axes
from mfld.experiments import tables
from mfld.experiments.tables import Format
from mfld.files import replacing
from mfld.spikes import Deconvolution
from mfld.spikes import deconvolve as spikes_of
from mfld.validation import FloatArray


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "deconvolve",
        examples=("mfld deconvolve signal.csv --kernel gaussian:0.5 --output spikes.csv",),
        help="find the spikes of a signal",
        description="Find the spikes whose sum, seen through a kernel, is a signal: sparse deconvolution (BLASSO) with "
        "a certificate of optimality.",
        epilog="The signal is a file with one column of values, two of positions and values, or, in two dimensions, "
        "a matrix of at least three columns. A kernel is gaussian:WIDTH, its standard deviation in the unit of the "
        "positions; dirichlet:F, the ideal low-pass filter of F frequencies on a circle whose period is that of the "
        "signal, or dirichlet:F:PERIOD; or a file with one column, an odd number of samples around its centre, as far "
        "apart as those of the signal.",
    )
    parser.add_argument("signal", metavar="FILE", help="file or URL, - for standard input")
    parser.add_argument(
        "--kernel", required=True, metavar="KERNEL", help="gaussian:WIDTH, dirichlet:F[:PERIOD] or FILE"
    )
    positive = checked("strength", number, lambda name, value: validation.real(name, value, positive=True))
    parser.add_argument(
        "--strength",
        type=positive,
        metavar="S",
        help="weight of the penalty (of tv: a tenth of that above which there are no spikes)",
    )
    parser.add_argument(
        "--penalty", choices=("tv", "squared_tv"), default="tv", help="sum of amplitudes (tv), or square"
    )
    parser.add_argument("--header", choices=("yes", "no"), help="whether the first line has names (found out)")
    add_format(parser)
    parser.add_argument(
        "--seed",
        type=checked("seed", int, lambda name, value: validation.seed(value)),
        default=0,
        help="of the search (0)",
    )
    add_num_threads(parser)
    parser.add_argument("--output", type=Path, metavar="FILE.csv", help="write positions, amplitudes and their errors")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw signal, fit and spikes")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    for path in (options.output, options.picture):
        if path is not None:
            check_output(path, [options.signal, options.kernel])
    if options.picture is not None:
        plots.check_format(options.picture)
        if options.output is not None and options.output.resolve() == options.picture.resolve():
            raise ValueError(f"--output and --picture cannot both be {options.output}")
    header = None if options.header is None else options.header == "yes"
    how = Format(header=header, **format_options(options))
    axis, signal = _signal(options.signal, how)
    kernel = _kernel(options.kernel, axis, signal)
    axes = default_axes(kernel, signal.shape) if axis is None else [axis]
    found = spikes_of(
        signal,
        kernel,
        options.strength,
        axes=axes,
        penalty=options.penalty,
        seed=options.seed,
        num_threads=options.num_threads,
    )
    columns = _columns(found)
    report = Report(options.json)
    size = " x ".join(map(str, signal.shape))
    report.add({"data": options.signal, "shape": list(signal.shape)}, f"{options.signal}: {size} values")
    report.add(
        {"kernel": repr(kernel), "penalty": options.penalty, "strength": found.strength},
        f"{kernel!r}, penalty {options.penalty}, strength {found.strength:.4g}",
    )
    own = found.certificate
    report.add(
        {"objective": own.value, "gap": own.gap, "noise_level": found.noise_level},
        f"objective {own.value:.6g}, at most {own.gap:.2g} above the optimum; noise level {found.noise_level:.4g}",
    )
    spikes = [dict(zip(columns, map(float, row), strict=True)) for row in zip(*columns.values(), strict=True)]
    report.add({"spikes": spikes}, f"spikes: {len(spikes)}")
    if options.output is None:
        report.add({}, csv_text(columns).rstrip("\n"))
    else:
        with replacing(options.output) as file:
            file.write(csv_text(columns).encode())
        report.add({"output": str(options.output)}, f"output: {options.output}")
    if options.picture is not None:
        plots.save(plots.deconvolution(found, title=plots.plain(f"mfld deconvolve {options.signal}")), options.picture)
        report.add({"picture": str(options.picture)}, f"picture: {options.picture}")
    report.finish()
    return 0


def _signal(path: str, how: Format) -> tuple[NDArray[np.float64] | None, NDArray[np.float64]]:
    """Positions, where the file has some, and the values of a signal."""
    values = _numbers(path, how)
    if values.shape[1] == 1:
        return None, values[:, 0]
    if values.shape[1] == 2:
        order = np.argsort(values[:, 0], kind="stable")
        axis, signal = values[order].T
        if not (np.diff(axis) > 0).all():
            raise ValueError(f"{path}: each position must occur once, {axis[1:][np.diff(axis) <= 0][0]:g} occurs again")
        return axis, signal
    return None, values


def _numbers(path: str, how: Format) -> NDArray[np.float64]:
    table = tables.read(path, how)
    for column in table.columns:
        if column.categories is not None:
            raise ValueError(f"{path}: column {column.name!r} must hold numbers, it holds texts")
        if column.gap is not None:
            raise ValueError(f"{table.place(column.gap[0], column.name)} must be a number, there is none")
    return np.stack([column.values for column in table.columns], axis=1)


def _kernel(text: str, axis: NDArray[np.float64] | None, signal: NDArray[np.float64]) -> PointSpread:
    name, *parts = text.split(":")
    expected = f"--kernel must be gaussian:WIDTH or dirichlet:F[:PERIOD] with positive numbers, or a file, got {text!r}"
    if name in ("gaussian", "dirichlet"):
        try:
            first, *rest = ((int if name == "dirichlet" else float)(parts[0]), *map(float, parts[1:]))
        except (ValueError, IndexError) as error:
            raise ValueError(expected) from error
        if len(rest) > (name == "dirichlet"):
            raise ValueError(expected)
        try:
            return Gaussian(first) if name == "gaussian" else Dirichlet(int(first), *(rest or [_period(axis, signal)]))
        except ValueError as error:
            raise ValueError(f"{expected}: {error}") from error
    if not text or (parts and "//" not in text and not Path(text).exists()):
        raise ValueError(expected)
    values = _numbers(text, Format())
    if values.shape[1] != 1:
        raise ValueError(f"--kernel must be a file with one column, {text} has {values.shape[1]}")
    if len(values) > min(signal.shape) + 1:
        raise ValueError(f"--kernel must not be longer than the signal, {min(signal.shape)}, got {len(values)} samples")
    spacing = _spacing(axis)
    try:
        return Sampled(values[:, 0], spacing=spacing)
    except ValueError as error:
        raise ValueError(f"--kernel {text}: {error}") from error


def _period(axis: NDArray[np.float64] | None, signal: NDArray[np.float64]) -> float:
    """That of a signal which goes around once."""
    return float(signal.shape[0]) if axis is None else _spacing(axis) * len(axis)


def _spacing(axis: NDArray[np.float64] | None) -> float:
    if axis is None:
        return 1.0
    steps: FloatArray = np.diff(axis)
    if np.ptp(steps) > 1e-6 * np.mean(steps):
        raise ValueError(
            f"positions must be equally far apart for this --kernel, they are {np.min(steps):g} to {np.max(steps):g}"
        )
    return float(np.mean(steps))


def _columns(found: Deconvolution) -> dict[str, FloatArray]:
    p = found.positions.shape[1]
    names = ["position"] if p == 1 else [f"position_{j + 1}" for j in range(p)]
    return {
        **{name: found.positions[:, j] for j, name in enumerate(names)},
        "amplitude": found.amplitudes,
        **{f"{name}_error": found.position_errors[:, j] for j, name in enumerate(names)},
        "amplitude_error": found.amplitude_errors,
    }
