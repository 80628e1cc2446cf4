"""Descriptions of values: texts that are equal for equal values, in every process; what a checkpoint tells runs by.

Objects are taken apart as pickle would take them apart, by ``__reduce_ex__``, functions by what is written and what
they read (`mfld.checkpoint.fingerprint`). What cannot be read is called unseen.
"""

from __future__ import annotations

import ast
import contextvars
import copyreg
import dis
import enum
import functools
import hashlib
import inspect
import re
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np


def arrays(value: object) -> Mapping[str, object] | None:
    """The arrays that an object consists of, if it says so by a ``__getstate__`` of its own."""
    if isinstance(value, type) or not any("__getstate__" in vars(parent) for parent in type(value).__mro__[:-1]):
        return None
    _, held = taken_apart(value)
    every = all(item is None or isinstance(item, np.ndarray) for item in held.values())
    return held if held and every else None


UNSEEN: Final = re.compile(r"unseen [\w.<>]+")
"""Occurrences of what a description does not see."""


def describe(value: object, above: tuple[int, ...] = ()) -> str:
    """Text that is equal for equal values, in any process; ``above`` are the objects that hold this one."""
    if id(value) in above:
        return f"<{len(above) - above.index(id(value))} up>"
    try:
        return _content(value, (*above, id(value)))
    except Exception:  # whatever another library does: a run does not end for want of a description
        return f"unseen {kind_of(value)}"


@functools.singledispatch
def _content(value: Any, above: tuple[int, ...]) -> str:
    """`describe` by kind; here an object of whatever class."""
    if callable(value) and hasattr(value, "__wrapped__"):  # a function that was compiled, cached, ...
        return f"{kind_of(value)} of {describe(value.__wrapped__, above)}"
    if inspect.isroutine(value) and hasattr(value, "__name__"):  # of a compiled module, or a method of a compiled class
        return _of_routine(value, above)
    if hasattr(value, "__array__"):  # of another library
        return _array_of(value, above)
    return _of_object(value, above)


def _of_object(value: object, above: tuple[int, ...]) -> str:
    kind, held = taken_apart(value)
    # Within an object of a class that was described, that class is not described again.
    of_class = {} if id(type(value)) in above else class_members(type(value))
    return f"{kind}{describe({**of_class, **held}, (*above, id(type(value))))}"


_Content: TypeAlias = Callable[[Any, tuple[int, ...]], str]


def _exactly(*kinds: type) -> Callable[[_Content], _Content]:
    """A description for these classes, and not for subclasses: these have attributes and methods."""

    def register(content: _Content) -> _Content:
        def chosen(value: Any, above: tuple[int, ...]) -> str:
            return content(value, above) if type(value) in kinds else _of_object(value, above)

        for kind in kinds:
            _content.register(kind, chosen)
        return content

    return register


@_exactly(type(None), bool, int, float, complex, str, bytes, range, slice)
def _(value: object, above: tuple[int, ...]) -> str:
    return repr(value)


_content.register(np.dtype, lambda value, above: repr(value))


@_content.register
def _(value: np.generic, above: tuple[int, ...]) -> str:
    return f"{value.dtype}({value.item()!r})"


@_content.register
def _(value: np.ndarray, above: tuple[int, ...]) -> str:
    if isinstance(value, np.ma.MaskedArray):
        parts = (np.asarray(value.data), np.ma.getmaskarray(value), value.fill_value)
        return f"masked {describe(parts, above)}"
    kind = ""
    if not isinstance(value, np.memmap) and type(value) is not np.ndarray:
        held = {} if _of_library(type(value).__module__) else {**class_members(type(value)), **vars(value)}
        kind = f"{kind_of(value)}{describe(held, above)} "
    plain = np.asarray(value)
    if plain.dtype.hasobject:
        return f"{kind}array of {describe(plain.tolist(), above)}"
    dtype = plain.dtype.str if plain.dtype.names is None else repr(plain.dtype)
    # Without a copy of the bytes: data may be large.
    data = np.ascontiguousarray(plain).reshape(-1).view(np.uint8).data if plain.nbytes else b""
    return f"{kind}{dtype} array of shape {plain.shape}, {digest(data)}"


@_content.register
def _(value: memoryview, above: tuple[int, ...]) -> str:
    return f"memoryview {value.format} of shape {value.shape}, {digest(value.tobytes())}"


@_content.register(types.MappingProxyType)
@_exactly(dict)
def _(value: Mapping[Any, Any], above: tuple[int, ...]) -> str:
    pairs = sorted((describe(key, above), describe(item, above)) for key, item in value.items())
    return f"{{{', '.join(f'{key}: {item}' for key, item in pairs)}}}"


@_exactly(list)
def _(value: list[object], above: tuple[int, ...]) -> str:
    return f"[{', '.join(describe(item, above) for item in value)}]"


@_exactly(tuple)
def _(value: tuple[object, ...], above: tuple[int, ...]) -> str:
    return f"({', '.join(describe(item, above) for item in value)})"


@_content.register(set)
@_content.register(frozenset)
def _(value: set[object] | frozenset[object], above: tuple[int, ...]) -> str:
    items = f"{{{', '.join(sorted(describe(item, above) for item in value))}}}"
    if type(value) in (set, frozenset):
        return items
    return f"{kind_of(value)}{items}{describe({**class_members(type(value)), **getattr(value, '__dict__', {})}, above)}"


@_content.register
def _(value: enum.Enum, above: tuple[int, ...]) -> str:
    return f"{kind_of(value)} of {describe(value.value, above)}"


@_content.register
def _(value: types.CodeType, above: tuple[int, ...]) -> str:
    # Not a docstring, which is the first constant, nor the line numbers. The instructions are those of one version.
    constants, flag = value.co_consts, getattr(inspect, "CO_HAS_DOCSTRING", None)  # before 3.14 the place says so
    documented = bool(value.co_flags & flag) if flag else not value.co_name.startswith("<")
    if documented and constants and isinstance(constants[0], str):
        constants = (None, *constants[1:])
    return describe((constants, value.co_names, digest(value.co_code)), above)


@_content.register
def _(value: types.FunctionType, above: tuple[int, ...]) -> str:
    attributes = {name: item for name, item in vars(value).items() if name != "__wrapped__"}
    parts = (value.__defaults__, value.__kwdefaults__, _closure_of(value), *([attributes] if attributes else []))
    held = describe(parts, above)
    if _of_library(value.__module__):
        return f"{value.__qualname__}{held}"
    source = _source(value.__code__)
    code = f"by names, constants and instructions {describe(value.__code__, above)}" if source is None else source
    read = _read_by(value)
    # The functions that a helper names in turn are left out, else all of a program would be part of a run.
    if _named_by_function.get():
        read = {name: item for name, item in read.items() if not (callable(item) or isinstance(item, types.ModuleType))}
    token = _named_by_function.set(True)
    try:
        return f"{value.__qualname__} {code}{held}{describe(read, above)}"
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
    return digest("".join(sorted(_syntax(node) for node in found)).encode()) if found else None


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


def class_members(kind: type) -> dict[str, object]:
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
    return bool({"__dataclass_fields__", "_fields"} & vars(kind).keys()) and _source(value.__code__) is None


_PROSE: Final = ("__repr__", "__str__", "__getstate__", "__setstate__", "__reduce__", "__reduce_ex__", "__del__")


def _plain(value: object) -> object:
    """The function in what a class holds of it."""
    if isinstance(value, property):
        return (value.fget, value.fset)
    if isinstance(value, functools.cached_property):
        return value.func
    return getattr(value, "__func__", value)


def _array_of(value: Any, above: tuple[int, ...]) -> str:
    """An array of another library; some refuse to be read as they are."""
    dtype = str(getattr(value, "dtype", ""))  # NumPy may have none like it: bfloat16
    kind = f"{kind_of(value)} {dtype}".rstrip()
    if dtype.startswith("key<"):  # a random key of JAX
        value = sys.modules["jax"].random.key_data(value)
    for attempt in (None, "detach", "cpu", "float"):
        try:
            value = value if attempt is None else getattr(value, attempt)()
            array = np.asarray(value)
        except Exception:
            continue
        if not array.dtype.hasobject:
            return f"{kind} {describe(array, above)}"
    return f"unseen {kind}"


@_content.register
def _(value: types.MethodType, above: tuple[int, ...]) -> str:
    return f"{describe(value.__func__, above)} of {describe(value.__self__, above)}"


def _of_routine(value: Any, above: tuple[int, ...]) -> str:
    """A function of a compiled module by its name, a method with what it is of."""
    owner = getattr(value, "__self__", None)
    name = getattr(value, "__qualname__", None) or value.__name__
    return name if owner is None or isinstance(owner, types.ModuleType) else f"{name} of {describe(owner, above)}"


@_content.register
def _(value: np.ufunc, above: tuple[int, ...]) -> str:
    known = any(
        getattr(sys.modules[module], value.__name__, None) is value
        for module in ("numpy", "scipy.special")
        if module in sys.modules
    )
    return value.__name__ if known else f"unseen {kind_of(value)}"


@_content.register
def _(value: type, above: tuple[int, ...]) -> str:
    members = class_members(value)
    return f"{value.__qualname__}{describe(members, above)}" if members else value.__qualname__


@_content.register
def _(value: types.ModuleType, above: tuple[int, ...]) -> str:
    return value.__name__


def taken_apart(value: object) -> tuple[str, Mapping[str, object]]:
    """Name of the class, and attributes, of an object, with what else it takes to make it as ``made of``.

    Properties that were computed and kept are no attributes. An object that cannot be copied is unseen.
    """
    try:
        reduce = copyreg.dispatch_table.get(type(value))
        reduced: Any = value.__reduce_ex__(4) if reduce is None else reduce(value)
    except Exception:
        return f"unseen {kind_of(value)}", {}
    if isinstance(reduced, str):  # the name of something global
        return kind_of(value), {"made of": reduced}
    make, arguments, held, items, pairs = (*reduced, None, None, None)[:5]
    if isinstance(held, tuple) and all(part is None or isinstance(part, Mapping) for part in held):  # __slots__
        held = {name: item for part in held if part for name, item in part.items()}
    if not isinstance(held, Mapping):
        held = {} if held is None else {"state": held}
    late = {
        name
        for parent in type(value).__mro__
        for name, item in vars(parent).items()
        if isinstance(item, functools.cached_property)
    }
    attributes = {
        name: item
        for name, item in held.items()
        if not (isinstance(name, str) and (name in late or name.lstrip("_") == "num_threads"))
    }
    made_of = [
        *([] if make is _NEW else [make]),
        *(part for part in arguments if part is not type(value)),
        *([] if items is None else [list(items)]),
        *([] if pairs is None else [dict(pairs)]),
    ]
    return kind_of(value), {**attributes, **({"made of": made_of} if made_of else {})}


_NEW: Final = object().__reduce_ex__(4)[0]  # how an object comes to be of which there is nothing more to say


def kind_of(value: object) -> str:
    # Without the module: that of a script is called otherwise in the processes that it starts.
    return type(value).__qualname__


def digest(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
