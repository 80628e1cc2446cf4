"""The meaning of NumPy's floating-point errors in the library.

A number too small for its type is 0 in all that is computed here: the exponential of a very negative number, a ridge in
float32. This is no error, also in a program with ``np.seterr(all="raise")``. Of overflow, division by 0 and what is not
a number the parts that know them to be harmless say so where they come up, and the program decides on all others, those
in functions of the user among them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numpy as np

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")


def underflow_is_zero(function: Callable[_Arguments, _Answer]) -> Callable[_Arguments, _Answer]:
    """The function, within which numbers that are too small are 0, whatever the program makes of underflow.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld.floating import underflow_is_zero
    >>> with np.errstate(all="raise"):
    ...     float(underflow_is_zero(np.exp)(-1000.0))
    0.0
    """

    @functools.wraps(function)
    def called(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Answer:
        with np.errstate(under="ignore"):
            return function(*args, **kwargs)

    return called
