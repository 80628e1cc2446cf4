"""Processes that compute one run together: each has a share of the particles, and all get the results of all.

They meet by one operation, in which each gives as many bytes as any other and gets those of all. What is summed over
particles is then summed by each for itself, along the same tree as in one process: results do not depend on the number
of processes, not by a bit.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mfld import _core
from mfld.validation import FloatArray

_ALIGNED = 64  # points: whole panels of the kernels, which are then the same ones in every share


@runtime_checkable
class Communicator(Protocol):
    """Part of a communicator that is asked for: three functions that those of mpi4py have."""

    def Get_rank(self) -> int: ...

    def Get_size(self) -> int: ...

    def Allgather(self, mine: Any, all_of_them: Any, /) -> Any:
        """Put the bytes of each rank, as many of all, side by side into the second buffer."""


class Ranks:
    """Processes behind a communicator, and the place of this one among them.

    Parameters
    ----------
    comm : Communicator
        Like ``mpi4py.MPI.COMM_WORLD``.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld.ranks import Ranks
    >>> class Alone:
    ...     def Get_rank(self):
    ...         return 0
    ...     def Get_size(self):
    ...         return 1
    ...     def Allgather(self, mine, all_of_them):
    ...         all_of_them[:] = mine
    >>> Ranks(Alone()).of_points(lambda points: (2 * points,), np.ones((3, 1)))[0].ravel()
    array([2., 2., 2.])
    """

    def __init__(self, comm: Communicator) -> None:
        self.comm = comm
        self.rank, self.count = comm.Get_rank(), comm.Get_size()

    def __repr__(self) -> str:
        return f"Ranks({self.rank} of {self.count})"

    @cached_property
    def native(self) -> _core.Ranks:
        """These ranks as the compiled core takes them."""
        return _core.Ranks(self.rank, self.count, self._exchange)

    def _exchange(self, slots: memoryview) -> None:
        size = len(slots) // self.count
        self.comm.Allgather(bytes(slots[self.rank * size : (self.rank + 1) * size]), slots)

    def sharing(self, problem: Any) -> Any:
        """A problem of the core that these ranks make together."""
        return problem._replace(ranks=self.native)

    def of_points(self, function: Any, *points: FloatArray) -> tuple[FloatArray, ...]:
        """Values of a function of points one by one, of which each rank computes those of its share.

        Parameters
        ----------
        function : callable
            Takes points, shape (m, p), and what belongs to them; returns a tuple of arrays of m rows.
        points : ndarrays, shape (n, p)
            Points, and what belongs to them: the same on all ranks, as is the result.
        """
        n = len(points[0])
        each = -(-n // (self.count * _ALIGNED)) * _ALIGNED
        begin, end = min(self.rank * each, n), min((self.rank + 1) * each, n)
        own = slice(begin, end) if begin < end else slice(1)
        mine = function(*(array[own] for array in points))
        gathered = []
        for array in mine:
            slots = np.empty((self.count, each, *array.shape[1:]), array.dtype)
            slot = np.zeros_like(slots[0])
            slot[: end - begin] = array[: end - begin]
            self.comm.Allgather(slot, slots)
            gathered.append(slots.reshape(-1, *array.shape[1:])[:n])
        return tuple(gathered)
