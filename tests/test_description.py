"""Descriptions of what a run is of: values that differ are told apart or named as unseen, equal ones are the same.

By kind and not by example: each entry makes a value by a number, and is called twice with one number and with two.
"""

import array
import collections
import contextlib
import copy
import ctypes
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import itertools
import operator
import pathlib
import pickle
import random
import re
import types
import uuid
import weakref

import numpy as np
import pytest

import mfld
from mfld import checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # of np.matrix


class Marked(np.ndarray):
    """An array with something beside its numbers."""

    def __array_finalize__(self, other):
        self.mark = getattr(other, "mark", None)


def marked(k, mark=None):
    found = np.arange(3.0).view(Marked) + k
    found.mark = mark
    return found


class Table(dict):
    pass


class Number(float):
    pass


class Count(int):
    pass


class Text(str):
    __slots__ = ("mark",)


class Row(list):
    pass


class Bag(set):
    pass


class Pair(tuple):
    pass


class Bytes(bytes):
    pass


def with_mark(value, mark):
    value.mark = mark
    return value


Point = collections.namedtuple("Point", "x y")


class Colour(enum.Enum):
    RED = 0
    BLUE = 1


class Flags(enum.Flag):
    ONE = 1
    TWO = 2


@dataclasses.dataclass
class Settings:
    width: float
    parts: list = dataclasses.field(default_factory=list)


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self, a):
        self.a = a


class Descriptor:
    def __init__(self, k):
        self.k = k

    def __get__(self, owner, kind=None):
        return self.k


def class_with(k):
    class Holder:
        value = Descriptor(k)

        @property
        def doubled(self):
            return 2 * k

        @classmethod
        def of_class(cls):
            return k

        @staticmethod
        def of_none():
            return k

        @functools.cached_property
        def late(self):
            return k

        @functools.partialmethod
        def bound(self, a=k):
            return a

    return Holder()


def function_with(k):
    def helper(x):
        return x

    helper.scale = k
    return helper


def lambda_from(text):
    return eval(text)


def made(k):
    names = {}
    exec(f"def f(x):\n    return x * {k + 1}\n", names)
    return names["f"]


def operators(k):
    names = {}
    exec(f"def f(x):\n    return x {'+-'[k]} 1\n", names)
    return names["f"]


class Cached:
    def __init__(self, k):
        self.k = k

    @functools.lru_cache  # noqa: B019
    def double(self, x):
        return self.k * x


class OfCopy:
    """Says by __reduce__ what it is."""

    __slots__ = ("hidden",)

    def __init__(self, k):
        self.hidden = k

    def __reduce__(self):
        return (OfCopy, (self.hidden,))


def cached(k, calls=0):
    cache = functools.lru_cache(lambda x: x * k)
    for x in range(calls):
        cache(x)
    return cache


class Kept:
    def __init__(self, k):
        self.k = k

    @functools.cached_property
    def table(self):
        return np.arange(self.k + 3)


def generator(kind, k):
    found = np.random.Generator(kind(7))
    found.random(k)
    return found


def legacy(k):
    found = np.random.RandomState(7)
    found.rand(k)
    return found


def pythons(k):
    found = random.Random(3)
    [found.random() for _ in range(k)]
    return found


MAKE = {
    "deque": lambda k: collections.deque([1, k]),
    "deque, length": lambda k: collections.deque([1], maxlen=k + 2),
    "Counter": lambda k: collections.Counter({"a": k + 1}),
    "OrderedDict": lambda k: collections.OrderedDict(a=k),
    "defaultdict": lambda k: collections.defaultdict(list, a=[k]),
    "defaultdict, default": lambda k: collections.defaultdict([list, set][k]),
    "ChainMap": lambda k: collections.ChainMap({"a": 1}, {"b": k}),
    "mapping proxy": lambda k: types.MappingProxyType({"a": k}),
    "UserDict": lambda k: collections.UserDict(a=k),
    "Decimal": lambda k: decimal.Decimal(f"1.{k}"),
    "Fraction": lambda k: fractions.Fraction(1, k + 2),
    "bytearray": lambda k: bytearray([1, k]),
    "memoryview": lambda k: memoryview(bytes([1, k])),
    "memoryview of floats": lambda k: memoryview(np.array([1.0, k])),
    "array.array": lambda k: array.array("d", [1, k]),
    "array.array, type": lambda k: array.array("hi"[k], [1]),
    "Generator": lambda k: generator(np.random.PCG64, k),
    "Generator of Philox": lambda k: generator(np.random.Philox, k),
    "Generator of MT19937": lambda k: generator(np.random.MT19937, k),
    "bit generator": np.random.PCG64,
    "SeedSequence": np.random.SeedSequence,
    "RandomState": legacy,
    "random.Random": pythons,
    "itemgetter": lambda k: operator.itemgetter(1, k),
    "attrgetter": lambda k: operator.attrgetter(["a", "b.c"][k]),
    "methodcaller": lambda k: operator.methodcaller("sum", axis=k),
    "ndarray subclass": marked,
    "ndarray subclass, attribute": lambda k: marked(0, k),
    "matrix": lambda k: np.asmatrix([[1.0, k]]),
    "record array": lambda k: np.rec.array([(1, k)], dtype=[("a", int), ("b", int)]),
    "masked array": lambda k: np.ma.array([1.0, 2.0], mask=[False, bool(k)]),
    "masked array, values": lambda k: np.ma.array([1.0, k], mask=[True, False]),
    "masked array, fill": lambda k: np.ma.array([1.0], fill_value=k),
    "memory map": lambda k: np.arange(k, k + 3),
    "array of objects": lambda k: np.array([None, (k,)], dtype=object),
    "order of bytes": lambda k: np.array([1, 2], dtype=["<i4", ">i4"][k]),
    "dict subclass, attribute": lambda k: with_mark(Table(a=1), k),
    "float subclass, attribute": lambda k: with_mark(Number(1.5), k),
    "int subclass, attribute": lambda k: with_mark(Count(3), k),
    "str subclass, slot": lambda k: with_mark(Text("a"), k),
    "list subclass, attribute": lambda k: with_mark(Row([1]), k),
    "set subclass, attribute": lambda k: with_mark(Bag([1]), k),
    "tuple subclass, attribute": lambda k: with_mark(Pair([1]), k),
    "bytes subclass, attribute": lambda k: with_mark(Bytes(b"a"), k),
    "subclass and its base": lambda k: [1.5, Number(1.5)][k],
    "namedtuple": lambda k: Point(1, k),
    "simple namespace": lambda k: types.SimpleNamespace(a=k),
    "enum": lambda k: list(Colour)[k],
    "flag": lambda k: [Flags.ONE, Flags.ONE | Flags.TWO][k],
    "dataclass": lambda k: Settings(1.0, [k]),
    "slots": Slotted,
    "what __reduce__ says": OfCopy,
    "function attribute": function_with,
    "descriptor, property and methods": class_with,
    "lambda without source": lambda k: lambda_from(["lambda x: x + 1", "lambda x: x + 2"][k]),
    "operator without source": operators,
    "function of exec": made,
    "compiled function": lambda k: [len, sum][k],
    "bound method of a list": lambda k: [1, k].count,
    "bound method of a text": lambda k: ["a", "b"][k].join,
    "method of an array": lambda k: np.array([1.0, k]).dot,
    "ufunc": lambda k: [np.add, np.multiply][k],
    "frompyfunc": lambda k: np.vectorize(lambda x: x + k),
    "partial": lambda k: functools.partial(max, k),
    "partial, attribute": lambda k: with_mark(functools.partial(max, 1), k),
    "lru_cache": cached,
    "singledispatch": lambda k: functools.singledispatch(lambda x: x + k),
    "method of an object": lambda k: Cached(k).double,
    "date": lambda k: datetime.date(2020, 1, 1 + k),
    "timedelta": lambda k: datetime.timedelta(seconds=k),
    "zone": lambda k: datetime.timezone(datetime.timedelta(hours=k)),
    "datetime64": lambda k: np.datetime64("2020-01-01") + k,
    "uuid": lambda k: uuid.UUID(int=k),
    "path": lambda k: pathlib.PurePosixPath(f"a/{k}"),
    "pattern": lambda k: re.compile(["a", "b"][k]),
    "pattern, flags": lambda k: re.compile("a", [0, re.IGNORECASE][k]),
    "count": itertools.count,
    "cycle": lambda k: itertools.cycle([1, k]),
    "iterator of a list": lambda k: iter([1, k]),
    "generator": lambda k: (x for x in [1, k]),
    "weak reference": lambda k: weakref.ref(KEPT[k]),
    "ctypes": lambda k: (ctypes.c_double * 2)(1, k),
    "ctypes structure": ctypes.c_int,
    "polynomial": lambda k: np.polynomial.Polynomial([1.0, k]),
    "poly1d": lambda k: np.poly1d([1.0, k]),
    "code": lambda k: compile(f"x + {k}", "a", "eval"),
    "nan": lambda k: [float("nan"), 0.0][k],
    "zeros": lambda k: [0.0, -0.0][k],
    "bool and int": lambda k: [True, 1][k],
    "numpy scalar": lambda k: [np.float32(1), np.float64(1)][k],
    "nested": lambda k: {"a": [({1, 2}, frozenset([k]))]},
    "list and tuple": lambda k: [[1], (1,)][k],
    "ellipsis": lambda k: [Ellipsis, NotImplemented][k],
    "mixed keys": lambda k: {1: "a", "1": k, None: 2},
}
KEPT = [Cached(0), Cached(1)]


def entry(value):
    """What the fingerprint of an objective that holds a value says of it."""
    well = mfld.Potential(lambda x: x, n_coordinates=1)
    holder = Holding(well, value)
    return checkpoint.fingerprint(objective=holder)


class Holding(mfld.Objective):
    def __init__(self, well, value):
        self.well, self.value = well, value
        self.space = well.space

    def loss(self, measure):
        return 0.0

    def loss_gradient(self, measure, batch=None):
        raise NotImplementedError

    def first_variation(self, measure, batch=None):
        return self.well


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_values_that_differ_are_told_apart_or_named_and_equal_ones_are_the_same(make):
    one, again, other = (entry(make(k)) for k in (0, 0, 1))
    assert one == again
    unseen = "unseen" in str(one)
    assert one != other or unseen, one
    assert " at 0x" not in str(one)


NOT_SEEN = {"cycle", "generator", "weak reference", "frompyfunc", "singledispatch"}  # or not in each version of Python
SEEN = sorted(set(MAKE) - NOT_SEEN)


@pytest.mark.parametrize("name", SEEN)
def test_what_can_be_read_is_not_called_unseen(name):
    assert "unseen" not in str(entry(MAKE[name](0)))


@pytest.mark.parametrize("name", [name for name in SEEN if name != "ndarray subclass, attribute"])  # copies lose it
def test_copies_are_the_same(name):
    value = MAKE[name](0)
    try:
        copies = [copy.deepcopy(value)]
    except Exception:
        pytest.skip("cannot be copied")
    with contextlib.suppress(Exception):
        copies.append(pickle.loads(pickle.dumps(value)))
    for each in copies:
        assert entry(each) == entry(value)


def test_an_objective_whose_cached_properties_were_used_is_the_same(tmp_path):
    """In one process: a checkpoint is of the problem, and not of what has been computed of it."""
    first, second = Kept(1), Kept(1)
    assert len(second.table) == 4
    assert entry(first) == entry(second)
    assert entry(cached(2)) == entry(cached(2, calls=3)) != entry(cached(3))

    class Sum(Holding):
        @functools.cached_property
        def total(self):
            return float(np.sum(np.ones(3)))

        def loss_gradient(self, measure, batch=None):
            return self.cloud(measure).particles * self.total

    well = mfld.Potential(lambda x: x, n_coordinates=1)
    solver = mfld.MFLD(4, step_size=0.1, temperature=0.1)
    objective = Sum(well, 1)
    half = checkpoint.run(solver, objective, 5, path=tmp_path / "run.npz")
    whole = checkpoint.run(solver, objective, 10, path=tmp_path / "run.npz")
    assert half.state.step == 5
    assert whole.particles.tobytes() == solver.run(Sum(well, 1), 10).particles.tobytes()
