"""Timing on a machine that others use too.

A window is one call of some steps. It counts only when nobody disturbed it, by what the operating system wrote down:

* *waited*: how long the threads of this process were ready but had no core (run delay, in
  ``/proc/self/task/*/schedstat``). Where the system does not tell, the time that others were busy on this process's
  cores (``/proc/stat``), less a clock tick a core. More than 3 % of the wall time disturbs a window.
* *idle*: none of the work waits for anything but a core, so at least one thread should run all the time. Processor time
  of the process under 97 % of the wall time disturbs.
* *steal*: what the hypervisor took from these cores (``/proc/stat``), less a clock tick: more than 3 % disturbs.

An implementation that crowds itself, with more threads than cores, waits as well: where fewer than two windows are
clean, the calmest half counts, and the report marks the time with a question mark.

Windows of different implementations alternate, so that a slow minute hits all of them.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MOST_LOST = 0.03  # of a window
CLEAN_ENOUGH = 2  # windows


@dataclass(frozen=True)
class Window:
    """One timed call: seconds per step, and wall, waited and stolen time as above; cores is CPU time over wall time."""

    seconds: float
    wall: float
    cores: float
    waited: float
    steal: float

    @property
    def disturbed(self) -> bool:
        return self.lost > MOST_LOST

    @property
    def lost(self) -> float:
        """The worst of the three, as a share of the wall time."""
        return max(self.waited, self.steal, 1 - self.cores)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "disturbed": self.disturbed}


def my_cpus() -> set[int]:
    return set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


@dataclass(frozen=True)
class _Clocks:
    wall: float
    cpu: float
    run_delay: float | None
    busy: float  # of this process's cores, by anybody
    steal: float

    @classmethod
    def read(cls) -> _Clocks:
        delay = _run_delay()
        busy, steal = _core_times()
        return cls(time.perf_counter(), time.process_time(), delay, busy, steal)


def _run_delay() -> float | None:
    """Seconds that the threads of this process have waited for a core."""
    total = 0
    try:
        tasks = os.listdir("/proc/self/task")
        for task in tasks:
            try:
                total += int(Path(f"/proc/self/task/{task}/schedstat").read_text().split()[1])
            except FileNotFoundError:
                if task == str(os.getpid()):
                    return None  # the kernel keeps no such statistics; another thread may just have ended
    except OSError:
        return None
    return total * 1e-9


def _core_times() -> tuple[float, float]:
    """Seconds that this process's cores were busy, and that the hypervisor took from them."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return 0.0, 0.0
    names = {f"cpu{cpu}" for cpu in my_cpus()}
    rows = [[int(x) for x in line.split()[1:]] for line in lines if line.split(maxsplit=1)[0] in names]
    tick = os.sysconf("SC_CLK_TCK")
    # user nice system idle iowait irq softirq steal
    return sum(r[0] + r[1] + r[2] + r[5] + r[6] for r in rows) / tick, sum(r[7] for r in rows) / tick


def timed(call: Callable[[], object], steps: int) -> Window:
    """Time one call that makes ``steps`` steps."""
    before = _Clocks.read()
    begin = time.perf_counter()
    call()
    wall = time.perf_counter() - begin
    after = _Clocks.read()
    cores, tick = len(my_cpus()), 1 / os.sysconf("SC_CLK_TCK")
    cpu = after.cpu - before.cpu
    if before.run_delay is not None and after.run_delay is not None:
        waited = after.run_delay - before.run_delay
    else:
        waited = max(0.0, after.busy - before.busy - cpu - cores * tick)
    steal = max(0.0, after.steal - before.steal - tick) / cores
    return Window(wall / steps, wall, cpu / wall, waited / wall, steal / wall)


def settle(threads: int, own: float = 0.1, others: float = 0.5) -> None:
    """Sleep until a window has a chance, or as many seconds are over.

    The threads of this process must be asleep, since pools spin for a while after their last work; and what other
    processes want to run now must leave as many cores free as the window takes.
    """
    end = time.perf_counter() + own
    while time.perf_counter() < end:
        cpu, begin = time.process_time(), time.perf_counter()
        time.sleep(0.003)
        if time.process_time() - cpu < 0.1 * (time.perf_counter() - begin):
            break
    free = (os.cpu_count() or 1) - threads
    end = time.perf_counter() + others
    calm = 0
    while calm < 3 and time.perf_counter() < end:
        calm = calm + 1 if _others_running() <= free else 0
        time.sleep(0.002)


def _others_running() -> int:
    """Threads of the whole system that run or want to at this moment, less this one."""
    try:
        return int(Path("/proc/loadavg").read_text().split()[3].split("/")[0]) - 1
    except (OSError, ValueError, IndexError):
        return 0


def steps_for(run: Callable[[int], object], seconds: float) -> int:
    """How many steps take about this long. Also warms up: caches, pools of threads, compilers."""
    run(1)
    steps = 1
    while True:
        begin = time.perf_counter()
        run(steps)
        taken = time.perf_counter() - begin
        if taken > seconds / 3:
            return max(1, round(steps * seconds / taken))
        steps = min(8 * steps, max(steps + 1, round(steps * seconds / max(taken, 1e-9))))


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    first, median, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, median, third


def summary(windows: Sequence[Window]) -> dict[str, Any]:
    """Median and quartiles of the undisturbed windows; of the calmest half where there are fewer than two of them."""
    clean = [w for w in windows if not w.disturbed]
    if len(clean) < min(CLEAN_ENOUGH, len(windows)):
        clean = sorted(windows, key=lambda w: w.lost)[: (len(windows) + 1) // 2]
    first, median, third = quartiles([w.seconds for w in clean])
    return {
        "median": median,
        "first_quartile": first,
        "third_quartile": third,
        # Of one thread this is the time it would have taken alone, in a disturbed window too.
        "cpu_median": statistics.median(w.seconds * w.cores for w in windows),
        "clean_windows": sum(not w.disturbed for w in windows),
        "windows": [w.as_dict() for w in windows],
    }
