"""Sweeps: a function at every point of a grid, on the workers of any executor, a line a run, none made twice."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import inspect
import itertools
import json
import math
import multiprocessing
import os
import pickle
import queue
import sys
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mfld import extras, validation
from mfld.description import describe
from mfld.files import followed, naming

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_AHEAD = 2  # runs that are submitted for each worker, so that none waits for the next one
_BATCH = 8  # runs that each worker of joblib makes between two writes


@dataclass(frozen=True)
class Sweep:
    """Result of a sweep: its runs in the order of the grid.

    Attributes
    ----------
    runs : tuple of dict
        Of each point its ``parameters``, ``seed``, ``seconds``, and either ``result`` or ``error``, a traceback.
    axes : dict
        Names and values of the grid; empty for points that were listed one by one.
    n_new : int
        Runs that this call made; the others were read from the file.

    Examples
    --------
    >>> import mfld
    >>> found = mfld.sweep(lambda a, b: {"product": a * b}, {"a": [2, 3], "b": [5, 7]}, executor=0)
    >>> found.column("product")
    array([[10, 14],
           [15, 21]])
    """

    runs: tuple[dict[str, Any], ...]
    axes: dict[str, list[Any]]
    n_new: int

    @property
    def failures(self) -> tuple[dict[str, Any], ...]:
        """Runs that ended by an error."""
        return tuple(run for run in self.runs if "error" in run)

    def column(self, name: str) -> NDArray[Any]:
        """Values of one name over the runs, in the shape of the grid; NaN where a run failed.

        Parameters
        ----------
        name : str
            Of a parameter or of a number that the function returned.

        Returns
        -------
        ndarray, shape (number of values of each axis), or (n_runs,) for a list of points
            Followed by the axes of the values where these are arrays.

        Raises
        ------
        KeyError
            If no run has it.
        ValueError
            If it is arrays of several shapes.
        """
        rows = [{**run["parameters"], "seed": run["seed"], **run.get("result", {})} for run in self.runs]
        known = set().union(*rows)
        if name not in known:
            raise KeyError(f"name must be one of {', '.join(sorted(known))}; got {name!r}")
        some: Any = next(row[name] for row in rows if name in row)
        missing = None if isinstance(some, str) else np.full(np.shape(some), math.nan)
        each = [row.get(name, missing) for row in rows]
        try:
            values = np.array(each)
        except ValueError:
            raise ValueError(f"{name!r} must have one shape in all runs to be a column, take `runs`") from None
        shape = [len(axis) for axis in self.axes.values()] or [len(rows)]
        return values.reshape(*shape, *values.shape[1:])

    def to_frame(self) -> Any:
        """The runs as a pandas DataFrame, a row each: parameters, seed, seconds, results, error."""
        pandas = extras.library("pandas", "test", "Sweep.to_frame")
        return pandas.DataFrame(
            [
                {
                    **run["parameters"],
                    "seed": run["seed"],
                    "seconds": run["seconds"],
                    **run.get("result", {}),
                    "error": run.get("error"),
                }
                for run in self.runs
            ]
        )


def sweep(
    function: Callable[..., Any],
    grid: Mapping[str, Iterable[Any]] | Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str] | None = None,
    *,
    executor: Any = None,
    seed: int = 0,
    progress: bool = False,
) -> Sweep:
    """A function at every point of a grid, each run kept as one line of JSON as soon as it ends.

    The run at a point x gets the keyword arguments x and, if the function takes one, a ``seed`` that depends on x and
    on `seed` alone: neither on the order of the runs, nor on the other points, nor on the workers. What the file holds
    is not run again, failures apart; a process that is killed loses the runs that were under way and no other.

    Parameters
    ----------
    function : callable
        Keyword arguments to a dict of results, numbers, texts, lists and arrays; or to one such value, then named
        ``value``. What a run raises becomes its ``error``, and the others go on.
    grid : dict of iterables, or list of dicts
        Values of each argument, of which every combination is run, the last name fastest; or the points themselves.
        Values are numbers, texts, booleans, None, and lists and dicts of these.
    path : path, optional
        File of lines. Runs of the same points are read from it if the function, in what it says and reads, is the one
        that made them; otherwise they are made again, which is warned of.
    executor : None, int, or an object that has ``submit``, or joblib.Parallel
        Who runs. None: a process a core, with one thread each; an int: so many processes, which share the cores; 0:
        this process. Every executor of `concurrent.futures` and its like will do: a Dask client, mpi4py's
        ``MPIPoolExecutor``; they keep their own rules on threads. ``joblib.Parallel`` also takes functions of
        notebooks.
    seed : int
        Of the whole sweep.
    progress : bool
        Whether to show a bar (extra ``progress``).

    Returns
    -------
    Sweep

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, a point is there twice, or its values are not those of JSON.
    BlockingIOError
        If another sweep writes to the file.

    Warns
    -----
    RuntimeWarning
        If runs failed, or were made again since the function had changed.

    Examples
    --------
    >>> import mfld
    >>> def spread(temperature, seed):
    ...     well = mfld.Potential(lambda x: x, n_coordinates=1)
    ...     run = mfld.MFLD(5000, step_size=0.1, temperature=temperature).run(well, 200, seed=seed)
    ...     return {"variance": run.particles.var()}
    >>> found = mfld.sweep(spread, {"temperature": [0.1, 0.4]}, executor=0)
    >>> found.column("variance").round(1)
    array([0.1, 0.4])
    """
    validation.function("function", function)
    if path is not None:
        validation.path("path", path)
    validation.boolean("progress", progress)
    seed = validation.seed(seed)
    points, axes = _points(grid)
    takes_seed = _takes_seed(function)
    runs = [_Run(point, _seed(seed, point) if takes_seed and "seed" not in point else None) for point in points]
    keys = [run.key for run in runs]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"grid must hold each point once, got {twice} twice")
    workers = _workers(executor, function)
    made_by = hashlib.sha256(describe(function).encode()).hexdigest()[:16]

    with ExitStack() as stack:
        file, kept, changed = stack.enter_context(_lines(path, made_by)) if path is not None else (None, {}, set())
        again = len(changed.intersection(keys))
        if again:
            warnings.warn(
                f"{again} runs in {os.fspath(path or '')} were made by another version of "
                f"{_name(function)} and are made again",
                RuntimeWarning,
                stacklevel=2,
            )
        todo = [run for run in runs if "result" not in kept.get(run.key, {})]
        bar = None
        if progress:
            tqdm = extras.library("tqdm.auto", "progress", "progress=True")
            bar = stack.enter_context(tqdm.tqdm(total=len(runs), initial=len(runs) - len(todo), unit="run"))
        for run, outcome in workers(function, todo):
            record = {"parameters": run.point, "seed": run.seed, "function": made_by, **outcome}
            kept[run.key] = record
            if file is not None:
                _append(file, record)
            if bar is not None:
                bar.update()
    result = Sweep(tuple(kept[key] for key in keys), axes, len(todo))
    if result.failures:
        first = result.failures[0]
        warnings.warn(
            f"{len(result.failures)} of {len(runs)} runs failed, the first at {json.dumps(first['parameters'])}: "
            f"{first['error'].strip().splitlines()[-1]}",
            RuntimeWarning,
            stacklevel=2,
        )
    return result


# ---- points ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    point: dict[str, Any]
    seed: int | None

    @functools.cached_property
    def key(self) -> str:
        return _canonical({"parameters": self.point, "seed": self.seed})

    @property
    def arguments(self) -> dict[str, Any]:
        return self.point if self.seed is None else {**self.point, "seed": self.seed}


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _points(grid: object) -> tuple[list[dict[str, Any]], dict[str, list[Any]]]:
    if isinstance(grid, Mapping):
        axes = {}
        for name, values in grid.items():
            if isinstance(values, str) or not isinstance(values, Iterable):
                raise TypeError(f"grid[{name!r}] must be an iterable of values, got {values!r}")
            axes[name] = [_plain(f"grid[{name!r}]", value) for value in values]
            if not axes[name]:
                raise ValueError(f"grid[{name!r}] must hold at least one value, got none")
        points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    elif isinstance(grid, Sequence) and not isinstance(grid, str) and all(isinstance(point, Mapping) for point in grid):
        axes = {}
        points = [
            {name: _plain(f"grid[{i}][{name!r}]", value) for name, value in point.items()}
            for i, point in enumerate(grid)
        ]
    else:
        raise TypeError(f"grid must be a dict of iterables or a list of dicts, got {type(grid).__name__}")
    wrong = next(
        (name for point in points for name in point if not isinstance(name, str) or not name.isidentifier()), None
    )
    if wrong is not None:
        raise ValueError(f"grid must have names of arguments, got {wrong!r}")
    return points, axes


def _plain(name: str, value: object) -> Any:
    """A value as JSON gives it back, so that a run is recognised when it is read."""
    try:
        return json.loads(json.dumps(value, default=_number, allow_nan=False))
    except (TypeError, ValueError):
        raise TypeError(
            f"{name} must be made of finite numbers, texts, booleans, None, lists and dicts, got {value!r}: "
            "build other objects within the function"
        ) from None


def _number(value: object) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no value of JSON")


def _takes_seed(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    return "seed" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _seed(seed: int, point: dict[str, Any]) -> int:
    # 53 bits: every reader of JSON keeps them.
    return int.from_bytes(hashlib.sha256(_canonical([seed, point]).encode()).digest()[:8], "big") >> 11


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))


# ---- the file --------------------------------------------------------------------------------------------------------


@contextmanager
def _lines(
    path: str | os.PathLike[str], made_by: str
) -> Iterator[tuple[BinaryIO, dict[str, dict[str, Any]], set[str]]]:
    """The file, locked and open at its end; its last run of each point by this function; and the points of others."""
    target = Path(followed(path))
    if target.exists() and not target.is_file():
        raise ValueError(f"path must be a file, or a new one, got {target}, which is a folder, a device or a pipe")
    kept: dict[str, dict[str, Any]] = {}
    others: set[str] = set()
    with open(target, "a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(f"{target} is written by another sweep") from error
        file.seek(0)
        whole = 0
        for number, line in enumerate(file, 1):
            if line.isspace():  # of an editor
                whole += len(line)
                continue
            if not line.endswith(b"\n") and (line.startswith(_BEGIN) or _BEGIN.startswith(line)):
                break  # cut off by a crash
            whole += len(line)
            try:
                record = json.loads(line)
                key = _canonical({"parameters": record["parameters"], "seed": record["seed"]})
                by = record["function"]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise ValueError(f"path must be a file of a sweep; line {number} of {target} is none") from error
            if by == made_by:
                kept[key] = record
                others.discard(key)
            elif key not in kept:
                others.add(key)
        file.truncate(whole)
        yield file, kept, others


_BEGIN = b'{"parameters":'  # of every record


def _append(file: BinaryIO, record: dict[str, Any]) -> None:
    """Write a line more to the disk, whole or not at all."""
    line, own = memoryview(json.dumps(record).encode() + b"\n"), file.fileno()
    end = os.fstat(own).st_size
    try:
        with naming(file.name):
            while line:  # a disk that fills takes a part first
                line = line[os.write(own, line) :]
            os.fsync(own)
    except BaseException:
        os.ftruncate(own, end)
        raise


# ---- workers ---------------------------------------------------------------------------------------------------------

_Outcomes = Iterator[tuple[_Run, dict[str, Any]]]


def _measured(function: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Outcome of one run, where it is made; no exception leaves it."""
    start = time.perf_counter()
    try:
        result = function(**arguments)
        if not isinstance(result, Mapping):
            result = {"value": result}
        outcome = {"result": json.loads(json.dumps(dict(result), default=_number))}
    except (Exception, SystemExit):  # a script that is called as a function may end by sys.exit
        outcome = {"error": traceback.format_exc()}
    return {**outcome, "seconds": time.perf_counter() - start}


def _workers(executor: Any, function: Callable[..., Any]) -> Callable[[Callable[..., Any], list[_Run]], _Outcomes]:
    if executor is None or (isinstance(executor, int) and not isinstance(executor, bool)):
        n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        n = n_cores if executor is None else validation.integer("executor", executor, 0)
        if n == 0:
            return _here
        _check_importable(function)
        return lambda function, runs: _in_processes(function, runs, n, max(1, n_cores // n))
    if callable(getattr(executor, "submit", None)):
        return lambda function, runs: _by_foreign(executor, function, runs)
    if callable(executor) and hasattr(executor, "n_jobs"):
        return lambda function, runs: _by_joblib(executor, function, runs)
    raise TypeError(
        f"executor must be None, a number of processes, an object that has submit, or joblib.Parallel, got {executor!r}"
    )


def _here(function: Callable[..., Any], runs: list[_Run]) -> _Outcomes:
    for run in runs:
        yield run, _measured(function, run.arguments)


def _check_importable(function: Callable[..., Any]) -> None:
    """TypeError, if a new process does not find the function by its name."""
    main = sys.modules["__main__"]
    at_prompt = getattr(function, "__module__", None) == "__main__" and not hasattr(main, "__file__")
    try:
        pickle.dumps(function)
    except Exception:
        at_prompt = True
    if at_prompt:
        raise TypeError(
            f"function must be one that a module defines, so that other processes find it, got {_name(function)}: "
            "put it into a file, or give executor=0 or executor=joblib.Parallel(n_jobs=2)"
        )


def _in_processes(function: Callable[..., Any], runs: list[_Run], n_workers: int, n_threads: int) -> _Outcomes:
    """Outcomes of new processes, with so many threads each.

    A worker that dies takes its pool along. The runs that were under way are then made alone, each in a process of its
    own, so that the one that kills its worker is known, and the others go on in a new pool.
    """
    left = {run.key: run for run in runs}
    with _environment(dict.fromkeys(_THREADS, str(n_threads))):
        while left:
            suspects = []
            for run, outcome in _in_pool(function, list(left.values()), n_workers):
                del left[run.key]
                if outcome is _LOST:
                    suspects.append(run)
                else:
                    yield run, outcome
            for suspect in suspects:
                for run, outcome in _in_pool(function, [suspect], 1):
                    yield run, _DIED if outcome is _LOST else outcome


def _in_pool(function: Callable[..., Any], runs: list[_Run], n_workers: int) -> _Outcomes:
    pool = ProcessPoolExecutor(min(n_workers, len(runs)), mp_context=multiprocessing.get_context("spawn"))
    finished = False
    try:
        yield from _submitted(pool, function, runs, n_workers * _AHEAD)
        finished = True
    finally:
        if not finished:  # after an error or Ctrl-C nobody waits for what is under way
            for process in list(pool._processes.values()):
                process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


_LOST: dict[str, Any] = {"error": "the executor broke down during this run", "seconds": math.nan}
_DIED: dict[str, Any] = {
    "error": "the worker died in this run: it was killed, had no memory, or crashed; a script must call sweep "
    "under if __name__ == '__main__'",
    "seconds": math.nan,
}


def _submitted(executor: Any, function: Callable[..., Any], runs: list[_Run], ahead: int | None = None) -> _Outcomes:
    """Outcomes as they come, of any executor whose futures call back.

    Where it breaks down, the runs that were under way are lost, and those that were not submitted have no outcome.
    """
    done: queue.SimpleQueue[tuple[_Run, Any]] = queue.SimpleQueue()
    waiting = deque(runs)
    pending: dict[str, Any] = {}
    broken = False
    try:
        while pending or (waiting and not broken):
            while waiting and not broken and (ahead is None or len(pending) < ahead):
                try:
                    future: Future[dict[str, Any]] = executor.submit(_measured, function, waiting[0].arguments)
                except BrokenExecutor:
                    broken = True
                    break
                run = waiting.popleft()
                pending[run.key] = future
                future.add_done_callback(functools.partial(_put, done, run))
            if not pending:
                break
            run, future = done.get()
            del pending[run.key]
            try:
                outcome = future.result()
            except BrokenExecutor:
                broken, outcome = True, _LOST
            except Exception:  # of the executor: what a run raises is in its outcome
                outcome = {"error": traceback.format_exc(), "seconds": math.nan}
            yield run, outcome
    finally:
        for future in pending.values():
            future.cancel()


def _put(done: queue.SimpleQueue[tuple[_Run, Any]], run: _Run, future: Any) -> None:
    done.put((run, future))


def _by_foreign(executor: Any, function: Callable[..., Any], runs: list[_Run]) -> _Outcomes:
    left = {run.key: run for run in runs}
    for run, outcome in _submitted(executor, function, runs):
        del left[run.key]
        yield run, outcome
    for run in left.values():
        yield run, _LOST


def _by_joblib(parallel: Any, function: Callable[..., Any], runs: list[_Run]) -> _Outcomes:
    joblib = extras.library("joblib", "sklearn", "executor=joblib.Parallel")
    # A parallel that returns a list does so at its end: it gets some runs at a time, kept before the next ones.
    n_at_a_time = _BATCH * joblib.effective_n_jobs(parallel.n_jobs)
    some = len(runs) if getattr(parallel, "return_generator", False) else n_at_a_time
    for first in range(0, len(runs), max(some, 1)):
        batch = enumerate(runs[first : first + some], first)
        for i, outcome in parallel(joblib.delayed(_numbered)(i, function, run.arguments) for i, run in batch):
            yield runs[i], outcome


def _numbered(i: int, function: Callable[..., Any], arguments: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return i, _measured(function, arguments)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Variables that new processes inherit; those that the user has set stay."""
    new = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)
