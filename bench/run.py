"""mfld against NumPy, PyTorch and JAX, and against what the machine can do at most. See bench/README.md.

python bench/run.py                              everything, about ten minutes
python bench/run.py --quick                      some cases, about a minute
python bench/run.py --cases 'full-*-tanh' tiny   cases by name or pattern, or by group
python bench/run.py --output results.json        and results.md beside it
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import measure
from cases import QUICK, THREADS, Case, all_cases, make_problem


def confine(threads: int) -> None:
    """Keep this process on as many cores, since XLA takes all that it is given."""
    if not hasattr(os, "sched_setaffinity"):
        return
    cores: dict[str, int] = {}
    for cpu in sorted(os.sched_getaffinity(0)):  # one hardware thread of each core
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.setdefault(siblings.read_text() if siblings.exists() else str(cpu), cpu)
    if len(cores) > threads:
        os.sched_setaffinity(0, list(cores.values())[:threads])


# ---- who takes part --------------------------------------------------------------------------------------------------


class Contestant:
    """One implementation of one case, in this process."""

    def __init__(self, name: str, case: Case, tune: bool) -> None:
        import peers  # noqa: PLC0415  after the environment is set

        self._problem = make_problem(case)
        self._implementation = peers.make(name, self._problem, tune)

    def choice(self) -> str | None:
        """What it chose to do; None if it does not do this case."""
        return None if self._implementation is None else self._implementation.choice

    def check(self, expected: Any) -> float | None:
        """Relative error of its answer."""
        import check  # noqa: PLC0415

        return check.check(self._implementation, self._problem, expected)

    def steps_for(self, seconds: float) -> int:
        return measure.steps_for(self._implementation.run, seconds)

    def window(self, steps: int) -> measure.Window:
        measure.settle(self._problem.case.threads)
        self._implementation.run(max(1, steps // 20))  # wakes its threads, fills the caches
        return measure.timed(lambda: self._implementation.run(steps), steps)


def serve(connection: Connection) -> None:
    """A worker: contestants in a process with an environment of its own."""
    contestant: Contestant | None = None
    while (message := connection.recv()) is not None:
        method, *arguments = message
        try:
            if method == "open":
                contestant = Contestant(*arguments)
                connection.send(None)
            else:
                connection.send(getattr(contestant, method)(*arguments))
        except Exception as error:
            connection.send(error)


class Worker:
    """A process for implementations that read their environment when they are imported."""

    def __init__(self, environment: dict[str, str]) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would inherit what is imported already
        self._connection, theirs = context.Pipe()
        before = dict(os.environ)
        os.environ.update(environment)
        try:
            self._process = context.Process(target=serve, args=(theirs,), daemon=True)
            self._process.start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        theirs.close()

    def ask(self, *message: Any) -> Any:
        self._connection.send(message)
        answer = self._connection.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self._connection.send(None)
        self._process.join()


class RemoteContestant:
    """A contestant in a worker."""

    def __init__(self, worker: Worker, name: str, case: Case, tune: bool) -> None:
        self._ask = worker.ask
        self._ask("open", name, case, tune)

    def choice(self) -> str | None:
        return self._ask("choice")

    def check(self, expected: Any) -> float | None:
        return self._ask("check", expected)

    def steps_for(self, seconds: float) -> int:
        return self._ask("steps_for", seconds)

    def window(self, steps: int) -> measure.Window:
        return self._ask("window", steps)


# ---- one case --------------------------------------------------------------------------------------------------------

ONE_THREAD = "mfld, 1 thread"
CASES_PER_CEILING = 20  # a machine can be slow for minutes
FORCED = "numpy forced"


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    A window lasts about ``window`` seconds. Rounds go on until everybody has ``most_clean`` clean windows, or
    ``case_seconds`` are over and everybody has ``fewest_clean``, or ``patience`` times as much is over.
    """

    window: float
    most_clean: int
    case_seconds: float
    fewest_clean: int = 3
    patience: float = 2.0

    def enough(self, fewest: int, seconds: float, rounds: int) -> bool:
        """``fewest`` is the number of clean windows of whoever has the fewest."""
        if fewest >= self.most_clean:
            return True
        over = rounds >= self.fewest_clean and seconds > self.case_seconds
        return over and (fewest >= self.fewest_clean or seconds > self.patience * self.case_seconds)


Maker = Callable[[bool], Contestant | RemoteContestant]  # of a contestant, tuned or not


def contestants(case: Case, peers_here: list[str], worker: Worker | None) -> dict[str, Maker]:
    """Who takes part in a case: makers by label."""
    result: dict[str, Maker] = {"mfld": lambda tune: Contestant("mfld", case, tune)}
    if case.threads > 1 and case.group != "normals":
        result[ONE_THREAD] = lambda tune: Contestant("mfld", replace(case, threads=1), tune)
    if not case.peers:
        return result
    for name in peers_here:
        if name == "jax" and case.threads == 1:
            continue  # XLA's threads are those of the process
        result[name] = lambda tune, name=name: Contestant(name, case, tune)
    if worker is not None:
        result[FORCED] = lambda tune: RemoteContestant(worker, "numpy", case, tune)
    return result


def measure_case(case: Case, makers: dict[str, Maker], effort: Effort | None) -> dict[str, Any]:
    """Check all implementations of a case, and then, unless there is to be no effort, time them."""
    import check  # noqa: PLC0415

    expected = check.expect(make_problem(case))
    field: dict[str, Any] = {}
    results: dict[str, dict[str, Any]] = {}
    for label, make in makers.items():
        contestant = make(effort is not None)
        choice = contestant.choice()
        if choice is None:
            continue
        results[label] = {"choice": choice, "error": contestant.check(expected)}
        field[label] = contestant

    result = {**asdict(case), "name": case.name, "work": case.work(), "implementations": results}
    if effort is None:
        return result
    steps = {label: contestant.steps_for(effort.window) for label, contestant in field.items()}
    windows: dict[str, list[measure.Window]] = {label: [] for label in field}
    clean = dict.fromkeys(field, 0)
    begin = time.perf_counter()
    rounds = 0
    while not all(windows.values()) or not effort.enough(min(clean.values()), time.perf_counter() - begin, rounds):
        rounds += 1
        for label, contestant in field.items():
            if clean[label] >= effort.most_clean:
                continue
            window = contestant.window(steps[label])
            if window.wall < effort.window / 2:
                # The number of steps was found in a bad moment; short windows would time the start of a call.
                steps[label] = round(steps[label] * effort.window / window.wall)
                windows[label].clear()
                clean[label] = 0
                continue
            windows[label].append(window)
            clean[label] += not window.disturbed
    for label in field:
        results[label] |= {"steps": steps[label], **measure.summary(windows[label])}
    return result


# ---- the whole run ---------------------------------------------------------------------------------------------------


def choose_cases(patterns: list[str]) -> list[Case]:
    chosen = [
        case
        for case in all_cases()
        if not patterns or any(fnmatch.fnmatch(case.name, p) or case.group == p for p in patterns)
    ]
    if not chosen:
        names = "\n".join(f"  {case.group}: {case.name}" for case in all_cases())
        raise SystemExit(f"no case is called {patterns}; there are\n{names}")
    return chosen


def describe_machine() -> dict[str, Any]:
    import mfld  # noqa: PLC0415

    model = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    description: dict[str, Any] = {
        "cpu": model,
        "cores": len(measure.my_cpus()),
        "system": platform.platform(),
        "python": platform.python_version(),
        "mfld": mfld.show_config(mode="dicts"),
        "date": time.strftime("%Y-%m-%d"),
        "versions": {},
    }
    for package in ("numpy", "scipy", "torch", "jax", "jaxlib", "threadpoolctl"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            description["versions"][package] = metadata.version(package)
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
        description["commit"] = subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()
    return description


def openblas_architecture() -> str | None:
    """What NumPy's OpenBLAS takes the processor for."""
    try:
        import numpy as np  # noqa: F401, PLC0415
        from threadpoolctl import threadpool_info  # noqa: PLC0415
    except ImportError:
        return None
    found = [pool.get("architecture") for pool in threadpool_info() if pool["internal_api"] == "openblas"]
    return found[0] if found else None


def forced_worker(coretype: str, peers_here: list[str]) -> tuple[Worker | None, str]:
    """A worker with NumPy's OpenBLAS forced, or why there is none."""
    if "numpy" not in peers_here:
        return None, "NumPy does not take part"
    detected = openblas_architecture()
    if detected is not None and detected.lower() == coretype.lower():
        return None, f"OpenBLAS has detected {detected} by itself"
    flags = Path("/proc/cpuinfo")
    if coretype == "SkylakeX" and not (flags.exists() and "avx512dq" in flags.read_text()):
        return None, "the processor has no AVX-512"
    return Worker({"OPENBLAS_CORETYPE": coretype}), f"OPENBLAS_CORETYPE={coretype} instead of {detected}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=[], metavar="NAME", help="names, patterns or groups; default all")
    parser.add_argument("--quick", action="store_true", help="some cases, short windows")
    parser.add_argument("--check", action="store_true", help="only check the answers")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="also writes FILE.md")
    parser.add_argument("--peers", nargs="*", default=["numpy", "torch", "jax"], choices=["numpy", "torch", "jax"])
    parser.add_argument("--patience", type=float, default=2.0, help="on a busy machine, so many times the usual time")
    parser.add_argument("--coretype", default="SkylakeX", help="OPENBLAS_CORETYPE of the forced NumPy")
    options = parser.parse_args(arguments)

    confine(THREADS)
    import ceilings  # noqa: PLC0415
    import peers  # noqa: PLC0415
    import report  # noqa: PLC0415

    import mfld  # noqa: PLC0415

    chosen = choose_cases(options.cases or (list(QUICK) if options.quick else []))
    seconds, most_clean, case_seconds = (0.03, 5, 1.0) if options.quick else (0.06, 9, 3.0)
    effort = Effort(seconds, most_clean, case_seconds, patience=options.patience)
    peers_here = [name for name in options.peers if peers.installed(name)]
    worker, forced = forced_worker(options.coretype, peers_here)
    if options.check:
        for case in chosen:
            found = measure_case(case, contestants(case, peers_here, worker), None)["implementations"]
            errors = [f"{label} {each['error'] or 0:.1e}" for label, each in found.items()]
            print(f"{case.name}: {', '.join(errors)}", flush=True)
        return 0

    level = mfld.show_config(mode="dicts")["level"]
    threads = {1, *(case.threads for case in chosen)}
    begin = time.perf_counter()
    result: dict[str, Any] = {
        "machine": describe_machine(),
        "forced": forced,
        "peers": peers_here,
        "effort": asdict(effort),
        "cases": [],
    }
    measured = []
    for count, case in enumerate(chosen, 1):
        if count % CASES_PER_CEILING == 1:
            measured.append(ceilings.measure(level, threads))
        entry = measure_case(case, contestants(case, peers_here, worker), effort)
        result["cases"].append(entry)
        took = time.perf_counter() - begin
        print(f"{count}/{len(chosen)} {took:4.0f} s  {report.one_line(entry)}", file=sys.stderr, flush=True)
    if worker is not None:
        worker.close()

    result["ceilings"] = ceilings.best(*measured, ceilings.measure(level, threads))
    table = ceilings.table(result["ceilings"])
    for case, entry in zip(chosen, result["cases"], strict=True):
        entry["floor"] = case.floor(table)
        entry["floor_one_thread"] = replace(case, threads=1).floor(table)
    result["seconds"] = time.perf_counter() - begin
    text = report.markdown(result)
    print(text)
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n")
        options.output.with_suffix(".md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
