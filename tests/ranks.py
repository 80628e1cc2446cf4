"""Ranks as threads of one process: what tests share out runs without MPI, too."""

import threading

import numpy as np


class Meeting:
    def __init__(self, count):
        self.count, self.slots, self.barrier = count, [None] * count, threading.Barrier(count)


class ThreadComm:
    """The part of an mpi4py communicator that mfld asks for."""

    def __init__(self, meeting, rank):
        self.meeting, self.rank, self.meetings = meeting, rank, 0

    def Get_rank(self):
        return self.rank

    def Get_size(self):
        return self.meeting.count

    def _all(self, mine):
        self.meetings += 1
        self.meeting.slots[self.rank] = mine
        self.meeting.barrier.wait(60)
        slots = list(self.meeting.slots)
        self.meeting.barrier.wait(60)
        return slots

    def Allgather(self, mine, all_of_them):
        slots = self._all(memoryview(mine).cast("B").tobytes())
        assert len({len(slot) for slot in slots}) == 1, "ranks gave different numbers of bytes"
        memoryview(all_of_them).cast("B")[:] = b"".join(slots)

    def bcast(self, message, root=0):
        return self._all(message)[root]


def on_ranks(count, function):
    """What ``function(comm)`` returns or raises on each of so many ranks."""
    meeting = Meeting(count)
    found = [None] * count

    def work(rank):
        try:
            found[rank] = function(ThreadComm(meeting, rank))
        except BaseException as error:
            found[rank] = error

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads), "a rank hangs"
    return found


def same(a, b):
    """True if two states agree in every bit."""
    return (
        a.step == b.step
        and all(np.array_equal(a.clouds[name].particles, b.clouds[name].particles) for name in b.clouds)
        and a.buffers.keys() == b.buffers.keys()
        and all(a.buffers[name].tobytes() == b.buffers[name].tobytes() for name in b.buffers)
    )


ALONE = ThreadComm(Meeting(1), 0)
