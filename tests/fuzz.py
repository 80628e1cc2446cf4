"""Odd calls of the public parts at random: several arguments at once, and what was built is used.

    python tests/fuzz.py [--calls N] [--seed K] [--only NAME] [--name]

Right is an answer in finite numbers, or a refusal by TypeError, ValueError, or an error that the library has for it.
Wrong is any other exception, NaN in an answer, a call that takes ten seconds, a crash. A call is its seed: what is
wrong is made again by `--seed K --calls 1`; `--name` says each seed first, for calls that end the process.
"""

import argparse
import contextlib
import dataclasses
import os
import random
import resource
import signal
import sys
import tempfile
import warnings
from collections import Counter

import numpy as np

import mfld
from mfld import sklearn
from test_odd_inputs import INPUTS, SIZES, TABLE, TARGETS, VALUES, check_works

SECONDS = 10
CLASSES = np.array([0, 1] * 6)
QUICK = {"n_particles": 4, "n_steps": 5}
REFUSALS = (TypeError, ValueError, mfld.DivergenceError, mfld.ConvergenceError, FileNotFoundError, ImportError)
# Where NaN stands for what there is not, as their documentation says.
MAY_BE_NAN = ("history", "acceptance", "gradient_variance", "gap", "gap_error", "upper", "misfit", "u", "r_hat", "rhat")
NAN_CALLS = ("diagnostics.rhat", "certificate", "Result.certificate", "mpi.Sharded.certificate")
NAN_CALLS += ("ExactScore.noise",)  # whose points need not be finite: samplers tell


class TooSlowError(BaseException):
    """Not an Exception: nothing on the way may take it for one of its own."""


def fitted(kind, y=TARGETS):
    """A call that builds an estimator, fits it and predicts."""

    def call(X, y, sample_weight, X_new, **parameters):
        with_weight = {} if sample_weight is None else {"sample_weight": sample_weight}
        return kind(**parameters).fit(X, y, **with_weight).predict(X_new)

    of_fit = {"X": INPUTS, "y": y, "sample_weight": None, "X_new": INPUTS[:2]}
    return call, of_fit | kind(**{k: v for k, v in QUICK.items() if k in kind().get_params()}).get_params()


CALLS = {
    **TABLE,
    "MeanFieldRegressor": fitted(sklearn.MeanFieldRegressor),
    "MeanFieldClassifier": fitted(sklearn.MeanFieldClassifier, CLASSES),
}


def elements(value, chance):
    """The same array with single numbers that are odd."""
    array = np.array(value, float)
    if array.size:
        odd = chance.choice([np.nan, np.inf, -np.inf, 1e300, 1e30, -1e30, 1e39, 1e-30, 1e-320, 0.0, -0.0])
        array.flat[chance.randrange(array.size)] = odd
    return array


def layout(value, chance):
    """The same numbers as another kind of array."""
    array = np.array(value)
    read_only = np.array(array)
    read_only.setflags(write=False)
    wide = np.repeat(array, 2, axis=-1) if array.ndim else array
    return chance.choice(
        [
            np.asfortranarray(array),
            read_only,
            wide[..., ::2] if array.ndim else wide,
            array[::-1] if array.ndim else array,
            array.astype(array.dtype.newbyteorder()),
            np.broadcast_to(array, array.shape),
            array.tolist(),
            np.ma.array(array),
            *(
                array.astype(kind)
                for kind in ("f2", "f4", "f8", "g", "i4", "u1", "?", "O")
                if array.dtype.kind in "fiub"
            ),
        ]
    )


def shape(value, chance):
    """Fewer or more axes, rows or columns; none."""
    array = np.array(value)
    return chance.choice(
        [
            array[:0],
            array[:1],
            array[np.newaxis],
            array.ravel(),
            array.T,
            array[..., :0] if array.ndim else array,
            np.concatenate([array, array]) if array.ndim else array,
            np.stack([array, array], axis=-1),
        ]
    )


def size(value, chance):
    """Numbers near or far."""
    factor = chance.choice([0.0, -1.0, 1e-30, 1e-300, 1e30, 1e300, 0.5, 2.0, np.nan, np.inf])
    return np.asarray(value, float) * factor if isinstance(value, np.ndarray) else value * factor


def other(value, chance):
    """What another argument of another call takes."""
    _, right = CALLS[chance.choice(sorted(CALLS))]
    return chance.choice(list(right.values())) if right else value


def changed(name, value, chance):
    """Another value for an argument."""
    ways = [other, lambda value, chance: VALUES[chance.choice(sorted(VALUES))]()]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        ways += [size, lambda value, chance: chance.choice([0, 1, 2, str(value), [value], np.float32(value)])] * 2
    if isinstance(value, np.ndarray) or (isinstance(value, (list, tuple)) and value):
        ways += [elements, layout, shape, layout, shape]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(TypeError, ValueError, IndexError, OverflowError):
            new = chance.choice(ways)(value, chance)
            too_large = isinstance(new, (int, float)) and abs(new) > 100
            if name == "executor":
                return value  # processes start for seconds
            return value if too_large and (name in SIZES or name.startswith("n_") or "size" in name) else new
    return value


def nan_in(thing, depth=0):
    """Where an answer has NaN, or ''."""
    if isinstance(thing, (float, np.floating)):
        return "NaN" if np.isnan(thing) else ""
    if isinstance(thing, np.ndarray):
        return f"NaN in {thing.shape}" if thing.dtype.kind == "f" and np.isnan(thing).any() else ""
    if depth > 4 or (isinstance(thing, mfld.Info) and thing.steps == 0):  # whose loss nobody has seen
        return ""
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        thing = {field.name: getattr(thing, field.name, None) for field in dataclasses.fields(thing)}
    if isinstance(thing, tuple) and hasattr(thing, "_asdict"):
        thing = thing._asdict()
    if isinstance(thing, dict):
        for key, value in thing.items():
            if key not in MAY_BE_NAN and (found := nan_in(value, depth + 1)):
                return f".{key}: {found}"
    elif isinstance(thing, (list, tuple)):
        return next(filter(None, (nan_in(each, depth + 1) for each in thing)), "")
    return ""


def asks_for_nan(arguments):
    """Whether the question itself has NaN or an infinite number."""
    for value in arguments.values():
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            if not np.isfinite(np.asarray(value, float)).all():
                return True
    return False


def tried(seed, only=None):
    """Name of the call, its arguments that are odd, and what is wrong or ''."""
    chance = random.Random(seed)
    name = only or chance.choice(sorted(CALLS))
    call, right = CALLS[name]
    odd = {}
    for argument in chance.sample(sorted(right), min(len(right), chance.choice([1, 1, 2, 2, 3, 5]))):
        odd[argument] = changed(argument, right[argument], chance)
    arguments = {**right, **odd}

    def slow(*_):
        raise TooSlowError

    before = signal.signal(signal.SIGALRM, slow)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            answer = call(**arguments)
            check_works(answer)
        found = nan_in(answer)
        return name, odd, f"answers {found}" if found and not asks_for_nan(odd) and name not in NAN_CALLS else ""
    except AssertionError as error:
        return name, odd, "" if asks_for_nan(odd) or name in NAN_CALLS else f"check_works: {error}"
    except REFUSALS as error:
        return name, odd, "" if str(error) else f"{type(error).__name__} says nothing"
    except MemoryError:
        return name, odd, ""  # of what asks for more than the limit
    except (Exception, TooSlowError) as error:
        return name, odd, f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def short(value):
    """A value in a line."""
    text = " ".join(repr(value).split())
    kind = f"{value.dtype}{list(value.shape)} " if isinstance(value, np.ndarray) else ""
    return kind + (text if len(text) < 90 else text[:90] + "..")


def search(calls, seed=0, only=None, say=lambda text: None):
    """What is wrong in so many calls from a seed on, as lines; each kind of it once."""
    kinds = Counter()
    lines = []
    for place in range(seed, seed + calls):
        say(f"seed {place}")
        name, odd, wrong = tried(place, only)
        if wrong:
            kinds[name, wrong[:40]] += 1
            if kinds[name, wrong[:40]] == 1:
                lines.append(f"seed {place}: {name}({', '.join(f'{k}={short(v)}' for k, v in odd.items())}): {wrong}")
    return lines


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=sorted(CALLS), metavar="NAME")
    parser.add_argument("--name", action="store_true")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # what asks for more is refused, and ends no machine
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        lines = search(
            options.calls,
            options.seed,
            options.only,
            (lambda text: print(text, file=sys.stderr, flush=True)) if options.name else lambda text: None,
        )
        os.chdir("/")
    print(*lines, f"{options.calls} calls from seed {options.seed}, {len(lines)} kinds of wrong", sep="\n")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
