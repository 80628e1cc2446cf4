"""Runs that are never lost: a state in a file, and a callback that keeps it up to date.

A file is a ``.npz`` archive: the arrays of the state, one JSON text that says what they are, and, as the comment of the
archive, the SHA-256 of everything before it. No pickle is written or read, so that loading executes nothing. A file is
written beside its final place, brought to the disk and then renamed: whenever a process dies, the name stands for
the last good state.
"""

from __future__ import annotations

import ast
import contextvars
import dataclasses
import dis
import functools
import hashlib
import inspect
import json
import os
import re
import sys
import time
import types
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mfld import _core, files, validation
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
    if not (resume and Path(path).exists()):
        if begun is None:
            return algorithm.run(objective, n_steps, seed, callbacks=callbacks, **options)
        validation.instance("state", begun, State, "a State")
        if begun.step > n_steps:
            raise ValueError(f"n_steps must be at least {begun.step}, where state stands, got {n_steps}")
        return algorithm.run(objective, n_steps - begun.step, state=begun, callbacks=callbacks, **options)
    seed = seed if begun is None else begun.seed
    state = _resumed(path, algorithm, objective, accept_other, stacklevel=3, seed=seed)
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
        found = {name: _UNSEEN.findall(text) for name, text in self._problem.items()}
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

    * the class by its name, and the attributes (``__getstate__`` where a class defines it): numbers and text as they
      print, arrays and what lies deeper by their SHA-256; an attribute that is a set of arrays has an entry for each;
    * of classes that are not of a library, also the class attributes and the methods;
    * functions by their syntax, without docstrings, comments and layout, or where there is no source by the names and
      constants of their code, as the entry then says and another version of Python may have them otherwise; their
      defaults and closures;
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
            kind, members = _members(given)
            entries[name] = kind
            for member, value in {**_class_members(type(given)), **members}.items():
                arrays = _arrays(value)
                entries[f"{name}.{member}"] = _short(value) if arrays is None else _kind(value)
                entries.update({f"{name}.{member}.{part}": _short(array) for part, array in (arrays or {}).items()})
    return entries


def _short(value: object) -> str:
    text = _describe(value)
    if len(text) <= 80:
        return text
    unseen = "".join(f", {found}" for found in sorted(set(_UNSEEN.findall(text))))
    return f"{_kind(value)} {_sha256(text.encode())}{unseen}"


_UNSEEN: Final = re.compile(r"unseen [\w.<>]+")


def _arrays(value: object) -> Mapping[str, object] | None:
    """The arrays that an object consists of, if it says so by a ``__getstate__`` of its own."""
    if isinstance(value, type) or not any("__getstate__" in vars(parent) for parent in type(value).__mro__[:-1]):
        return None
    _, members = _members(value)
    every = all(item is None or isinstance(item, np.ndarray) for item in members.values())
    return members if members and every else None


@functools.singledispatch
def _content(value: Any, above: tuple[int, ...]) -> str:
    """`_describe` by kind; here an object of whatever class."""
    try:
        if callable(value) and hasattr(value, "__wrapped__"):  # a function that was compiled, cached, ...
            return f"{_kind(value)} of {_describe(value.__wrapped__, above)}"
        if inspect.isroutine(value) or isinstance(value, np.ufunc):  # of a compiled module
            return str(value.__name__)
        if hasattr(value, "__array__"):  # of another library
            return _array_of(value, above)
        kind, members = _members(value)
        # Within an object of a class that was described, that class is not described again.
        of_class = {} if id(type(value)) in above else _class_members(type(value))
        return f"{kind}{_describe({**of_class, **members}, (*above, id(type(value))))}"
    except Exception:  # whatever another library does: a run does not end for want of a description
        return f"unseen {_kind(value)}"


def _describe(value: object, above: tuple[int, ...] = ()) -> str:
    """Text that is equal for equal values, in any process; ``above`` are the objects that hold this one."""
    if id(value) in above:
        return f"<{len(above) - above.index(id(value))} up>"
    return _content(value, (*above, id(value)))


for _kind_of_value in (type(None), int, float, complex, str, bytes, range, slice, np.dtype):
    _content.register(_kind_of_value, lambda value, above: repr(value))


@_content.register
def _(value: np.generic, above: tuple[int, ...]) -> str:
    return f"{value.dtype}({value.item()!r})"


@_content.register
def _(value: np.ndarray, above: tuple[int, ...]) -> str:
    if value.dtype.hasobject:
        return f"array of {_describe(value.tolist(), above)}"
    digest = _sha256(np.ascontiguousarray(value).tobytes())
    return f"{value.dtype.str} array of shape {value.shape}, {digest}"


@_content.register(Mapping)
def _(value: Mapping[Any, Any], above: tuple[int, ...]) -> str:
    pairs = sorted((_describe(key, above), _describe(item, above)) for key, item in value.items())
    return f"{{{', '.join(f'{key}: {item}' for key, item in pairs)}}}"


@_content.register(list)
@_content.register(tuple)
def _(value: Sequence[object], above: tuple[int, ...]) -> str:
    return f"({', '.join(_describe(item, above) for item in value)})"


@_content.register(AbstractSet)
def _(value: AbstractSet[Any], above: tuple[int, ...]) -> str:
    return f"{{{', '.join(sorted(_describe(item, above) for item in value))}}}"


@_content.register(functools.partial)
def _(value: functools.partial[Any], above: tuple[int, ...]) -> str:
    return f"partial{_describe((value.func, value.args, value.keywords), above)}"


@_content.register
def _(value: types.CodeType, above: tuple[int, ...]) -> str:
    # Not the instructions, which are those of one version of Python, nor a docstring, which is the first constant.
    constants, flag = value.co_consts, getattr(inspect, "CO_HAS_DOCSTRING", None)  # before 3.14 the place says so
    documented = bool(value.co_flags & flag) if flag else not value.co_name.startswith("<")
    if documented and constants and isinstance(constants[0], str):
        constants = (None, *constants[1:])
    return _describe((constants, value.co_names), above)


@_content.register
def _(value: types.FunctionType, above: tuple[int, ...]) -> str:
    held = _describe((value.__defaults__, value.__kwdefaults__, _closure_of(value)), above)
    if _of_library(value.__module__):
        return f"{value.__qualname__}{held}"
    source = _source(value.__code__)
    code = f"by names and constants {_describe(value.__code__, above)}" if source is None else source
    read = _read_by(value)
    # The functions that a helper names in turn are left out, else all of a program would be part of a run.
    if _named_by_function.get():
        read = {name: item for name, item in read.items() if not (callable(item) or isinstance(item, types.ModuleType))}
    token = _named_by_function.set(True)
    try:
        return f"{value.__qualname__} {code}{held}{_describe(read, above)}"
    finally:
        _named_by_function.reset(token)


_named_by_function: contextvars.ContextVar[bool] = contextvars.ContextVar("named_by_function", default=False)


def _closure_of(function: types.FunctionType) -> dict[str, object]:
    """Values of the variables around a function; not the class around a method, which ``super()`` asks for."""
    held: dict[str, object] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if name != "__class__":
            try:
                held[name] = cell.cell_contents
            except ValueError:  # not filled yet
                held[name] = None
    return held


def _read_by(function: types.FunctionType) -> dict[str, object]:
    """Values of the globals that a function names, and of the attributes of modules."""
    around = {**function.__globals__, **_closure_of(function)}
    read: dict[str, object] = {}
    value: object
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        codes.extend(const for const in code.co_consts if isinstance(const, types.CodeType))
        # The names of the code alone would not do: those of attributes are among them.
        name, value = "", None
        for step in dis.get_instructions(code):
            if step.opname == "EXTENDED_ARG":
                continue
            if step.opname in _LOADS and step.argval in around:
                name, value = step.argval, around[step.argval]
            elif step.opname in _ATTRIBUTES and _is_own_module(value) and hasattr(value, step.argval):
                name, value = f"{name}.{step.argval}", getattr(value, step.argval)
            else:
                name, value = "", None
            if name and step.opname != "LOAD_DEREF":  # what is in the closure is described there
                read[name] = value
    return read


_LOADS: Final = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS", "LOAD_DEREF")
_ATTRIBUTES: Final = ("LOAD_ATTR", "LOAD_METHOD")


def _is_own_module(value: object) -> bool:
    """True for a module that is neither of a library nor of an installed package."""
    if not isinstance(value, types.ModuleType) or _of_library(value.__name__):
        return False
    return not {"site-packages", "dist-packages"} & set(Path(getattr(value, "__file__", None) or "").parts)


def _source(code: types.CodeType) -> str | None:
    """Digest of the syntax of a function; None where its source cannot be found or parsed."""
    try:
        lines, _ = inspect.findsource(code)
        found = _functions("".join(lines)).get((code.co_firstlineno, code.co_name), [])
    except (OSError, TypeError, SyntaxError, ValueError, RecursionError):
        return None
    if len(found) > 1:  # lambdas that begin on one line: the one whose body is where the code returns, if that is known
        places = set(code.co_positions())
        same: list[ast.AST] = [node for node in found if isinstance(node, ast.Lambda) and _place(node.body) in places]
        found = same or found
    return _sha256("".join(sorted(_syntax(node) for node in found)).encode()) if found else None


def _place(node: ast.expr) -> tuple[int | None, ...]:
    return (node.lineno, node.end_lineno, node.col_offset, node.end_col_offset)


@functools.lru_cache(maxsize=8)
def _functions(text: str) -> dict[tuple[int, str], list[ast.AST]]:
    """The functions of a file by first line and name.

    All of the file is parsed: the lines of one function alone may be no sentence, as in the middle of a list.
    """
    found: dict[tuple[int, str], list[ast.AST]] = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min(part.lineno for part in (node, *node.decorator_list))
            found.setdefault((first, node.name), []).append(node)
        elif isinstance(node, ast.Lambda):
            found.setdefault((node.lineno, "<lambda>"), []).append(node)
    return found


def _syntax(node: object) -> str:
    """A syntax tree as text, without docstrings, places and what is empty: `ast.dump` differs between versions."""
    if isinstance(node, ast.Constant):
        return repr(node.value)
    if isinstance(node, ast.AST):
        fields = dict(ast.iter_fields(node))
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and ast.get_docstring(node) is not None
        ):
            fields["body"] = node.body[1:]
        parts = [f"{name}={_syntax(item)}" for name, item in fields.items() if item is not None and item != []]
        return f"{type(node).__name__}({', '.join(parts)})"
    if isinstance(node, list):
        return f"[{', '.join(map(_syntax, node))}]"
    return repr(node)


def _of_library(module: str | None) -> bool:
    """True for a module of a library, whose parts are known by their names."""
    root = (module or "").partition(".")[0]
    return root in _LIBRARIES or root in sys.stdlib_module_names


_LIBRARIES: Final = frozenset(["builtins", "jax", "jaxlib", "mfld", "numpy", "scipy", "sklearn", "torch"])


def _class_members(kind: type) -> dict[str, object]:
    """Class attributes and methods of classes that are not of a library."""
    members: dict[str, object] = {}
    for parent in reversed(kind.__mro__):
        if not _of_library(parent.__module__):
            members.update({name: item for name, item in vars(parent).items() if not _is_machinery(parent, name)})
    return {name: _plain(value) for name, value in members.items() if name.lstrip("_") != "num_threads"}


def _is_machinery(kind: type, name: str) -> bool:
    """True for an entry of a class that is Python's own, or decides how an object prints and is copied only."""
    if not (name.startswith("__") and name.endswith("__")):
        return name == "_abc_impl"
    value = vars(kind)[name]
    if name in _PROSE or not isinstance(value, types.FunctionType):
        return True
    # The methods that dataclasses write have no source, and another text in each version of Python.
    return "__dataclass_fields__" in vars(kind) and _source(value.__code__) is None


_PROSE: Final = ("__repr__", "__str__", "__getstate__", "__setstate__", "__reduce__", "__reduce_ex__", "__del__")


def _plain(value: object) -> object:
    """The function in what a class holds of it."""
    if isinstance(value, property):
        return (value.fget, value.fset)
    return getattr(value, "__func__", value)


def _array_of(value: Any, above: tuple[int, ...]) -> str:
    """An array of another library; some refuse to be read as they are."""
    dtype = str(getattr(value, "dtype", ""))  # NumPy may have none like it: bfloat16
    kind = f"{_kind(value)} {dtype}".rstrip()
    if dtype.startswith("key<"):  # a random key of JAX
        value = sys.modules["jax"].random.key_data(value)
    for attempt in (None, "detach", "cpu", "float"):
        try:
            value = value if attempt is None else getattr(value, attempt)()
            array = np.asarray(value)
        except Exception:
            continue
        if not array.dtype.hasobject:
            return f"{kind} {_describe(array, above)}"
    return f"unseen {kind}"


@_content.register
def _(value: types.MethodType, above: tuple[int, ...]) -> str:
    return f"{_describe(value.__func__, above)} of {_describe(value.__self__, above)}"


@_content.register
def _(value: type, above: tuple[int, ...]) -> str:
    members = _class_members(value)
    return f"{value.__qualname__}{_describe(members, above)}" if members else value.__qualname__


@_content.register
def _(value: types.ModuleType, above: tuple[int, ...]) -> str:
    return value.__name__


def _members(value: object) -> tuple[str, Mapping[str, object]]:
    """Name of the class, and attributes, of an object; those of one that cannot be copied are unseen."""
    try:
        members = value.__getstate__()
    except Exception:
        return f"unseen {_kind(value)}", {}
    if isinstance(members, tuple) and all(part is None or isinstance(part, Mapping) for part in members):  # __slots__
        members = {name: item for part in members if part for name, item in part.items()}
    if not isinstance(members, Mapping):
        members = {} if members is None else {"state": members}
    return _kind(value), {name: item for name, item in members.items() if name.lstrip("_") != "num_threads"}


def _kind(value: object) -> str:
    # Without the module: that of a script is called otherwise in the processes that it starts.
    return type(value).__qualname__


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


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
            with np.load(file, allow_pickle=False) as stored:
                metadata = json.loads(str(stored["metadata"][()]))
                version, made_by = metadata["format"], metadata["version"]
                arrays = {name: stored[name] for name in stored.files} if version == _FORMAT else {}
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
