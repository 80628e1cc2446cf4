"""Runs that are never lost: a state in a file, and a callback that keeps it up to date.

A file is a ``.npz`` archive: the arrays of the state, one JSON text that says what they are, and, as the comment of the
archive, the SHA-256 of everything before it. No pickle is written or read, so that loading executes nothing. A file is
written beside its final place, brought to the disk and then renamed: whenever a process dies, the name stands for
the last good state.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mfld import _core, description, files, validation
from mfld.algorithms import Algorithm, Callback, Result
from mfld.algorithms.base import are_steps
from mfld.objectives import Objective
from mfld.state import Cloud, Info, State

_FORMAT: Final = 1
_TAG: Final = b"mfld checkpoint sha256 "
_DIGEST_LENGTH: Final = 64  # hexadecimal digits
_BLOCK: Final = 1 << 20

StrPath: TypeAlias = str | os.PathLike[str]


def save(
    state: State, path: StrPath, *, algorithm: Algorithm | None = None, objective: Objective | None = None
) -> None:
    """Write a state to a file, which is replaced as a whole or not at all.

    Parameters
    ----------
    state : State
    path : str or path
        By custom with the suffix ``.npz``. A symbolic link is followed.
    algorithm : Algorithm, optional
    objective : Objective, optional
        What the state belongs to: a `fingerprint` goes with the file, so that `load` can tell.

    Raises
    ------
    OSError
        If it cannot be written; a file that was there before is then untouched.
    TypeError
        If the state holds an array that is none of numbers, truth values or text.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np
    >>> import mfld
    >>> well = mfld.Potential(lambda x: x, n_coordinates=1)
    >>> solver = mfld.MFLD(n_particles=10, step_size=0.1, temperature=1.0)
    >>> state, _ = solver.advance(well, solver.init(well, seed=3), n_steps=5)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mfld.checkpoint.save(state, pathlib.Path(folder) / "state.npz", algorithm=solver, objective=well)
    ...     again = mfld.checkpoint.load(pathlib.Path(folder) / "state.npz", algorithm=solver, objective=well)
    >>> again.step, again.seed, np.array_equal(again.particles, state.particles)
    (5, 3, True)
    """
    validation.instance("state", state, State, "a State")
    validation.path("path", path)
    _write(state, path, fingerprint(algorithm=algorithm, objective=objective))


def load(
    path: StrPath,
    *,
    algorithm: Algorithm | None = None,
    objective: Objective | None = None,
    accept_other: bool = False,
) -> State:
    """Read a state that `save` or `Checkpoint` wrote; to go on: ``solver.run(objective, n_steps, state=state)``.

    Parameters
    ----------
    path : str or path
    algorithm : Algorithm, optional
    objective : Objective, optional
        What is to go on. What is given must be what the file was written with, as `fingerprint` sees it.
    accept_other : bool
        Go on with another problem, knowingly: the differences are a RuntimeWarning.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no checkpoint, is damaged or truncated, comes from a newer mfld, or belongs to another problem; the
        message names the file and the reason.
    """
    validation.path("path", path)
    return _resumed(path, algorithm, objective, accept_other, stacklevel=3)


def _resumed(
    path: StrPath,
    algorithm: Algorithm | None,
    objective: Objective | None,
    accept_other: bool,
    stacklevel: int,
    seed: int | None = None,
) -> State:
    accept_other = validation.boolean("accept_other", accept_other)
    state, problem = _read(path)
    expected = fingerprint(algorithm=algorithm, objective=objective)
    kinds = {name.partition(".")[0] for name in expected}
    found = {name: value for name, value in problem.items() if name.partition(".")[0] in kinds}
    names = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    differences = [
        f"{name} was {found.get(name, 'not there')}, now it is {expected.get(name, 'not there')}" for name in names
    ]
    noise = ""
    if seed is not None and seed != state.seed:
        differences.insert(0, f"seed was {state.seed}, now it is {seed}")
        noise = f" with seed={state.seed}"
    if differences:
        message = f"{path} is a checkpoint of another run: "
        if not accept_other:
            more = [f"and {len(differences) - 3} more"] if len(differences) > 3 else []
            shown = "; ".join(differences[:3] + more)
            raise ValueError(f"{message}{shown}; accept_other=True goes on all the same{noise}")
        if noise:
            differences[0] += f", and the run goes on{noise}"
        warnings.warn(message + "; ".join(differences), RuntimeWarning, stacklevel=stacklevel)
    return state


def run(
    algorithm: Algorithm,
    objective: Objective,
    n_steps: int,
    seed: int = 0,
    *,
    path: StrPath,
    every: int | None = None,
    seconds: float | None = None,
    resume: bool = True,
    accept_other: bool = False,
    **options: Any,
) -> Result:
    """Run to ``n_steps`` steps in all, with a checkpoint: from its state where the file exists, else from the start.

    However often the process died in between, the particles at the end are those of one run, to the bit. The history
    is that of the last part.

    Parameters
    ----------
    algorithm : Algorithm
    objective : Objective
    n_steps : int
        Steps in all, those before the file included.
    seed : int
        Must be that of the file where there is one: a run has one noise from its first step to its last.
    path, every, seconds
        As in `Checkpoint`.
    resume : bool
        False starts anew and replaces the file.
    accept_other : bool
        As in `load`. The noise too goes on as it began, with the seed of the file, whatever ``seed`` is.
    **options
        As in ``algorithm.run``; ``particles`` or ``state`` are where the run starts that has no file yet.

    Raises
    ------
    OSError, ValueError
        As in `load` and ``algorithm.run``.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import mfld
    >>> well = mfld.Potential(lambda x: x, n_coordinates=1)
    >>> solver = mfld.MFLD(n_particles=10, step_size=0.1, temperature=1.0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "run.npz"
    ...     first = mfld.checkpoint.run(solver, well, 100, path=path)     # say that it is killed here
    ...     second = mfld.checkpoint.run(solver, well, 300, path=path)    # goes on at step 100
    >>> second.state.step, len(second.history["step"])
    (300, 100)
    """
    validation.instance("algorithm", algorithm, Algorithm, "an Algorithm")
    n_steps, seed = validation.integer("n_steps", n_steps, 0), validation.seed(seed)
    resume = validation.boolean("resume", resume)
    callbacks = [*options.pop("callbacks", ()), Checkpoint(path, every=every, seconds=seconds)]
    begun = options.pop("state", None)

    def kept() -> State | None:
        if not (resume and Path(path).exists()):
            return None
        own = seed if begun is None else begun.seed
        return _resumed(path, algorithm.described, objective, accept_other, stacklevel=5, seed=own)

    state = algorithm.once(kept)
    if state is None:
        if begun is None:
            return algorithm.run(objective, n_steps, seed, callbacks=callbacks, **options)
        validation.instance("state", begun, State, "a State")
        if begun.step > n_steps:
            raise ValueError(f"n_steps must be at least {begun.step}, where state stands, got {n_steps}")
        return algorithm.run(objective, n_steps - begun.step, state=begun, callbacks=callbacks, **options)
    if state.step > n_steps:
        raise ValueError(f"n_steps must be at least {state.step}, where {path} stands, got {n_steps}")
    options.pop("particles", None)  # where the run started
    if are_steps(options.get("record_every")):
        options["record_every"] = [step for step in options["record_every"] if step >= state.step]
    return algorithm.run(objective, n_steps - state.step, state=state, callbacks=callbacks, **options)


class Checkpoint(Callback):
    """Keep the state of a run in a file: at intervals, and where the run ends, by an error or Ctrl-C too.

    A file that cannot be written, on a full disk say, is a RuntimeWarning and neither the end of the run nor of the
    last good file; the next interval tries again. It changes nothing about the result.

    Parameters
    ----------
    path : str or path
        File, replaced as a whole each time.
    every : int, optional
        Write at each multiple of so many steps.
    seconds : float, optional
        Write after so many seconds instead; a minute where neither is given.

    Warns
    -----
    RuntimeWarning
        When a run starts, about what of it cannot be described: see `fingerprint`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or both intervals are given.
    OSError
        When a run starts, if there is no such folder, or none to write in.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np
    >>> import mfld
    >>> well = mfld.Potential(lambda x: x, n_coordinates=1)
    >>> solver = mfld.MFLD(n_particles=10, step_size=0.1, temperature=1.0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "run.npz"
    ...     result = solver.run(well, n_steps=60, callbacks=[mfld.Checkpoint(path, every=50)])
    ...     state = mfld.checkpoint.load(path, algorithm=solver, objective=well)
    >>> resumed = solver.run(well, n_steps=40, state=state)
    >>> np.array_equal(resumed.particles, solver.run(well, n_steps=100).particles)
    True
    """

    def __init__(self, path: StrPath, *, every: int | None = None, seconds: float | None = None) -> None:
        if every is not None and seconds is not None:
            raise ValueError(f"every and seconds must not both be given, got {every} and {seconds}")
        self.every = None if every is None else validation.integer("every", every, 1)
        self.seconds = 60.0 if seconds is None else validation.real("seconds", seconds, positive=True)
        self.path = Path(validation.path("path", path))
        self._problem: dict[str, str] = {}

    def on_problem(self, algorithm: Algorithm, objective: Objective) -> None:
        self._problem = fingerprint(algorithm=algorithm, objective=objective)
        found = {name: description.UNSEEN.findall(text) for name, text in self._problem.items()}
        unseen = "; ".join(f"{name} has {', '.join(parts)}" for name, parts in found.items() if parts)
        if unseen:
            message = f"a checkpoint cannot tell whether what it does not see has changed when a run goes on: {unseen}"
            warnings.warn(message, RuntimeWarning, stacklevel=2)

    def on_start(self, state: State, n_steps: int) -> None:
        files.check_writable(files.followed(self.path))
        files.sweep(self.path)
        self._written: int | None = None
        self._failed = False
        self._due = time.monotonic() + self.seconds

    def __call__(self, state: State, info: Info) -> None:
        if self.every is not None or time.monotonic() >= self._due:
            self._write(state)

    def on_end(self, state: State) -> None:
        if state.step != self._written:
            self._write(state)

    def _write(self, state: State) -> None:
        try:
            _write(state, self.path, self._problem)
        except OSError as error:
            if not self._failed:
                message = f"no checkpoint at step {state.step}, the run goes on: {error}"
                warnings.warn(message, RuntimeWarning, stacklevel=2)
            self._failed = True
        else:
            self._written = state.step
            self._failed = False
        self._due = time.monotonic() + self.seconds


# ---- what a run is of ------------------------------------------------------------------------------------------------


def fingerprint(*, algorithm: Algorithm | None = None, objective: Objective | None = None) -> dict[str, str]:
    """Description of an algorithm and an objective by their values: the same in every process, short, comparable.

    Compared are

    * the class by its name, and what pickle would keep of it (``__getstate__`` where a class defines it) without
      properties that were computed and kept: numbers and text as they print, arrays and what lies deeper by their
      SHA-256; an attribute that is a set of arrays has an entry for each;
    * of classes that are not of a library, also the class attributes and the methods;
    * functions by their syntax, without docstrings, comments and layout, or where there is no source by the names,
      constants and instructions of their code, as the entry then says and another version of Python has them otherwise;
      their defaults, closures and attributes;
    * the globals that a function names, and ``name`` in ``module.name`` where the module is not an installed one:
      values, and functions and classes with their own source. Of what these functions name in turn the values count,
      and functions and classes do not.

    Libraries are Python's own, JAX, mfld, NumPy, scikit-learn, SciPy and torch: their functions and classes, and all
    modules, count by name. Not compared are their versions, what a function imports itself, numbers of threads, what
    it reads from files or elsewhere at run time, and what cannot be read, which the entry calls unseen.

    Examples
    --------
    >>> import mfld
    >>> solver = mfld.MFLD(n_particles=10, step_size=0.1, temperature=1.0)
    >>> mfld.checkpoint.fingerprint(algorithm=solver)["algorithm.step_size"]
    '0.1'
    """
    entries: dict[str, str] = {}
    if algorithm is not None:
        validation.instance("algorithm", algorithm, Algorithm, "an Algorithm")
    # An algorithm of the user may run on what is no Objective, a game say.
    for name, given in (("algorithm", algorithm), ("objective", objective)):
        if given is not None:
            kind, members = description.taken_apart(given)
            entries[name] = kind
            for member, value in {**description.class_members(type(given)), **members}.items():
                arrays = description.arrays(value)
                entries[f"{name}.{member}"] = _short(value) if arrays is None else description.kind_of(value)
                entries.update({f"{name}.{member}.{part}": _short(array) for part, array in (arrays or {}).items()})
    return entries


def _short(value: object) -> str:
    text = description.describe(value)
    if len(text) <= 80:
        return text
    unseen = "".join(f", {found}" for found in sorted(set(description.UNSEEN.findall(text))))
    return f"{description.kind_of(value)} {description.digest(text.encode())}{unseen}"


# ---- the file --------------------------------------------------------------------------------------------------------


def _write(state: State, path: StrPath, problem: Mapping[str, str]) -> None:
    metadata, arrays = _packed(state, problem)
    with files.replacing(path) as file:
        np.savez(file, allow_pickle=False, metadata=np.array(json.dumps(metadata)), **arrays)
        _seal(file)


def _packed(state: State, problem: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """JSON text and arrays. Names of clouds and buffers are free text, so arrays are numbered."""
    arrays: dict[str, NDArray[Any]] = {}

    def number(name: str, value: NDArray[Any]) -> str:
        if value.dtype.hasobject:
            raise TypeError(f"{name} must be an array of numbers, truth values or text, got dtype {value.dtype}")
        arrays[f"array_{len(arrays)}"] = value
        return f"array_{len(arrays) - 1}"

    clouds = {
        name: {
            field.name: number(f"clouds[{name!r}].{field.name}", value)
            for field in dataclasses.fields(cloud)
            if (value := getattr(cloud, field.name)) is not None
        }
        for name, cloud in state.clouds.items()
    }
    buffers = {name: number(f"buffers[{name!r}]", value) for name, value in state.buffers.items()}
    scalars = {
        field.name: getattr(state, field.name)
        for field in dataclasses.fields(state)
        if field.name not in ("clouds", "buffers")
    }
    metadata = {
        "format": _FORMAT,
        "version": _core.__version__,
        "kernels": f"{_core.backend.isa}, {_core.backend.compiler}",
        "clouds": clouds,
        "buffers": buffers,
        "scalars": scalars,
        "problem": dict(problem),
    }
    return metadata, arrays


def _seal(file: IO[bytes]) -> None:
    """Make the digest of all that comes before it the comment of the archive."""
    with zipfile.ZipFile(file, "a") as archive:
        archive.comment = _TAG + bytes(_DIGEST_LENGTH)
    end = file.seek(0, os.SEEK_END) - _DIGEST_LENGTH
    digest = _digest(file, end)
    file.seek(end)
    file.write(digest)


def _digest(file: IO[bytes], end: int) -> bytes:
    """SHA-256, as text, of the first bytes of a file."""
    digest = hashlib.sha256()
    file.seek(0)
    while end > 0:
        block = file.read(min(end, _BLOCK))
        if not block:
            break
        digest.update(block)
        end -= len(block)
    return digest.hexdigest().encode()


def _read(path: StrPath) -> tuple[State, dict[str, str]]:
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        end = size - _DIGEST_LENGTH
        file.seek(max(0, end - len(_TAG)))
        tag, sealed = file.read(len(_TAG)), file.read()
        if end < len(_TAG) or tag != _TAG:
            raise ValueError(f"{path} is no checkpoint of mfld, or a damaged one: it does not end like one")
        if _digest(file, end) != sealed:
            raise ValueError(f"{path} is a damaged checkpoint: its checksum does not match")
        file.seek(0)
        # From here on the file is what was written on purpose.
        try:
            arrays = files.arrays(file)
            metadata = json.loads(str(arrays["metadata"][()]))
            version, made_by = metadata["format"], metadata["version"]
        except OSError:
            raise
        except Exception as error:
            raise ValueError(f"{path} is no checkpoint of mfld: {error}") from error
    if version != _FORMAT:
        raise ValueError(
            f"{path} has checkpoint format {version}, written by mfld {made_by}; "
            f"this mfld {_core.__version__} reads format {_FORMAT}"
        )
    try:
        clouds = {
            name: Cloud(**{field: arrays[number] for field, number in members.items()})
            for name, members in metadata["clouds"].items()
        }
        buffers = {name: arrays[number] for name, number in metadata["buffers"].items()}
        return State(clouds=clouds, buffers=buffers, **metadata["scalars"]), dict(metadata["problem"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is no checkpoint that this mfld {_core.__version__} can use: {error}") from error
