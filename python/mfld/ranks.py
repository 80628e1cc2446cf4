"""Processes that compute one run together: each has a share of the particles, and all get the results of all.

They meet by one operation, in which each gives as many bytes as any other and gets those of all. What is summed over
particles is summed in leaves, which depend on their number alone, and by each for itself over the leaves of all, as in
one process: results do not depend on the number of processes, not by a bit.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mfld import _core
from mfld.validation import FloatArray

_ALIGNED = 64  # points: whole panels of the kernels, which are then the same ones in every share
_MOST_LEAVES = 64  # as in the core


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
    by_rows : bool
        Whether steps of full gradients share the rows of the data, and not the particles.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld.ranks import ALONE
    >>> ALONE, ALONE.of_points(lambda points: (2 * points,), np.ones((3, 1)))[0].ravel()
    (Ranks(0 of 1), array([2., 2., 2.]))
    """

    def __init__(self, comm: Communicator, by_rows: bool = False) -> None:
        self.comm, self.by_rows = comm, by_rows
        self.rank, self.count = comm.Get_rank(), comm.Get_size()

    def __repr__(self) -> str:
        return f"Ranks({self.rank} of {self.count})"

    @cached_property
    def native(self) -> _core.Ranks:
        """These ranks as the compiled core takes them."""
        return _core.Ranks(self.rank, self.count, self.comm.Allgather, by_rows=self.by_rows)

    def share(self, n: int) -> Share:
        """The share of this process in n points."""
        return Share(self, n)

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
        share = self.share(len(points[0]))
        mine = function(*(array[share.own] for array in points))
        return tuple(share.gather(array) for array in mine)


class Share:
    """The points of one process, among n that it shares with others.

    Points are cut into leaves, at most 64 of a multiple of 64 points each, and a process has whole leaves, whose points
    are the rows ``own`` of all. Where there are more processes than leaves, some have none: they compute for the first
    point, as if it were theirs, and nobody hears of it.

    Parameters
    ----------
    ranks : Ranks
    n : int
        Positive.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld.ranks import ALONE
    >>> share = ALONE.share(100)
    >>> share.own, float(share.mean(np.arange(100.0)))
    (slice(0, 100, None), 49.5)
    """

    def __init__(self, ranks: Ranks, n: int) -> None:
        self.n, self._ranks = n, ranks
        self._each = _ALIGNED * -(-n // (_ALIGNED * _MOST_LEAVES))
        self._n_leaves = -(-n // self._each)
        begin, end = self._leaves(ranks.rank)
        self._n_own = min(end * self._each, n) - begin * self._each if begin < end else 0
        self.own = slice(begin * self._each, begin * self._each + self._n_own) if begin < end else slice(0, 1)

    def __repr__(self) -> str:
        return f"Share({self.own.start}:{self.own.stop} of {self.n})"

    def gather(self, mine: NDArray[Any]) -> NDArray[Any]:
        """Rows for all points, from those for the own ones: the same on all processes."""
        if self._ranks.count == 1:
            return mine
        return self._together(mine[: self._n_own], self._each, self.n)

    def mean(self, mine: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean over all points, from the rows for the own ones: the same for any number of processes."""
        mine = mine[: self._n_own]
        whole = self._n_own // self._each * self._each
        sums = mine[:whole].reshape(-1, self._each, *mine.shape[1:]).sum(axis=1)
        if whole < self._n_own:
            sums = np.concatenate([sums, mine[whole:].sum(axis=0)[np.newaxis]])
        if self._ranks.count > 1:
            sums = self._together(sums, 1, self._n_leaves)
        mean: NDArray[np.float64] = sums.sum(axis=0) / self.n
        return mean

    def _leaves(self, rank: int) -> tuple[int, int]:
        count = self._ranks.count
        return self._n_leaves * rank // count, self._n_leaves * (rank + 1) // count

    def _together(self, mine: NDArray[Any], each: int, n: int) -> NDArray[Any]:
        """n rows of all processes, from the own ones, ``each`` of them for a leaf."""
        parts = [(each * begin, min(each * end, n)) for begin, end in map(self._leaves, range(self._ranks.count))]
        slots = np.empty((len(parts), max(end - begin for begin, end in parts), *mine.shape[1:]), mine.dtype)
        slot = np.zeros_like(slots[0])
        slot[: len(mine)] = mine
        self._ranks.comm.Allgather(slot, slots)
        return np.concatenate([slots[rank, : end - begin] for rank, (begin, end) in enumerate(parts)])


class _OneProcess:
    def Get_rank(self) -> int:
        return 0

    def Get_size(self) -> int:
        return 1

    def Allgather(self, mine: Any, all_of_them: Any, /) -> None:
        all_of_them[:] = mine


ALONE: Final = Ranks(_OneProcess())
"""One process, which shares with nobody."""
