"""Sweeps: each run once, whoever runs it, whatever dies."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import mfld

FUNCTIONS = """
    import os, time
    import numpy as np
    def product(a, b, seed):
        return {"product": a * b, "pair": np.array([a, b]), "drawn": int(np.random.default_rng(seed).integers(100))}
    def threads(a):
        import mfld
        return mfld._core.backend.max_threads()
    def killed_at_three(a):
        if a == 3:
            os.kill(os.getpid(), 9)
        return a * a
    def ends(a):
        raise SystemExit(a)
    def ragged(a):
        return [0] * a
    def slow(a):
        time.sleep(0.05)
        return a
    def odd_fails(a, allowed=False):
        if a % 2:
            raise ArithmeticError(f"{a} is odd")
        return a
"""


@pytest.fixture
def functions(tmp_path, monkeypatch):
    """A module that new processes find."""
    (tmp_path / "sweep_functions.py").write_text(textwrap.dedent(FUNCTIONS))
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("sweep_functions")
    sys.modules.pop("sweep_functions")


GRID = {"a": [1, 2, 3], "b": [0.5, -1.0]}


def numbers(sweep):
    return [{**run["parameters"], "seed": run["seed"], **run["result"]} for run in sweep.runs]


def test_a_grid_in_this_process(functions):
    found = mfld.sweep(functions.product, GRID, executor=0)
    assert found.column("product").tolist() == [[0.5, -1.0], [1.0, -2.0], [1.5, -3.0]]
    assert found.column("pair").shape == (3, 2, 2)
    assert found.column("b").tolist() == [[0.5, -1.0]] * 3
    assert (found.n_new, found.failures, found.axes) == (6, (), GRID)
    frame = found.to_frame()
    assert list(frame["product"]) == [0.5, -1.0, 1.0, -2.0, 1.5, -3.0]
    with pytest.raises(KeyError, match="name must be one of a, b, drawn, pair, product, seed; got 'loss'"):
        found.column("loss")


def test_seeds_depend_on_the_point_and_the_sweep_alone(functions):
    seeds = mfld.sweep(functions.product, GRID, executor=0).column("seed")
    assert len(set(seeds.ravel().tolist())) == 6
    part = mfld.sweep(functions.product, [{"b": -1.0, "a": 2}], executor=0)
    assert part.column("seed").tolist() == [seeds[1, 1]]
    other = mfld.sweep(functions.product, GRID, executor=0, seed=1).column("seed")
    assert not np.isin(other, seeds).any()
    given = mfld.sweep(functions.product, {**GRID, "seed": [7, 8]}, executor=0)  # seeds as an axis
    assert given.column("drawn").shape == (3, 2, 2)
    assert given.runs[0]["seed"] is None


def joblib_parallel(**settings):
    joblib = pytest.importorskip("joblib")
    # Workers that an earlier test left do not know the folder of the module; new ones take the paths of this process.
    joblib.externals.loky.get_reusable_executor().shutdown(wait=True)
    return joblib.Parallel(n_jobs=2, **settings)


@pytest.mark.parametrize(
    "executor",
    [
        lambda: 2,
        lambda: ThreadPoolExecutor(2),
        joblib_parallel,
        lambda: joblib_parallel(return_as="generator_unordered", backend="threading"),
    ],
    ids=["processes", "threads", "joblib", "joblib-unordered"],
)
def test_executors_give_the_same_runs(functions, executor, tmp_path):
    alone = mfld.sweep(functions.product, GRID, executor=0)
    found = mfld.sweep(functions.product, GRID, tmp_path / "runs.jsonl", executor=executor())
    assert numbers(found) == numbers(alone)
    lines = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert sorted(map(str, (line["result"] for line in lines))) == sorted(map(str, (r["result"] for r in alone.runs)))


def test_a_dask_cluster_gives_the_same_runs(functions, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)  # its workers find the module there
    alone = mfld.sweep(functions.product, GRID, executor=0)
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "local_directory": tmp_path}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        first = mfld.sweep(functions.product, {**GRID, "a": [1, 2]}, tmp_path / "runs.jsonl", executor=client)
        found = mfld.sweep(functions.product, GRID, tmp_path / "runs.jsonl", executor=client)
        with pytest.warns(RuntimeWarning, match="2 of 3 runs failed"):
            failed = mfld.sweep(functions.odd_fails, {"a": [1, 2, 3]}, executor=client)
    assert (first.n_new, found.n_new) == (4, 2)
    assert numbers(found) == numbers(alone)
    assert "1 is odd" in failed.failures[0]["error"]


def test_processes_share_the_cores(functions, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    n_cores = len(os.sched_getaffinity(0))
    assert mfld.sweep(functions.threads, {"a": [0]}, executor=n_cores).column("value").tolist() == [1]
    assert mfld.sweep(functions.threads, {"a": [0]}, executor=1).column("value").tolist() == [n_cores]
    assert "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "3")  # the user's word holds
    assert mfld.sweep(functions.threads, {"a": [0]}, executor=1).column("value").tolist() == [3]


def test_what_is_there_is_not_run_again(functions, tmp_path):
    path = tmp_path / "runs.jsonl"
    first = mfld.sweep(functions.product, {"a": [1, 2], "b": [0.5]}, path, executor=0)
    more = mfld.sweep(functions.product, GRID, path, executor=0)
    assert (first.n_new, more.n_new) == (2, 4)
    assert mfld.sweep(functions.product, GRID, path, executor=0).n_new == 0
    assert numbers(more) == numbers(mfld.sweep(functions.product, GRID, executor=0))
    assert mfld.sweep(functions.product, GRID, path, executor=0, seed=5).n_new == 6  # other seeds are other runs

    with open(path, "rb+") as file:  # a crash in the middle of a line
        file.truncate(path.stat().st_size - 10)
    assert mfld.sweep(functions.product, GRID, path, executor=0, seed=5).n_new == 1
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_failures_are_kept_with_their_traceback_and_made_again(functions, tmp_path):
    path = tmp_path / "runs.jsonl"
    with pytest.warns(
        RuntimeWarning, match=re.escape('1 of 3 runs failed, the first at {"a": 3}: ArithmeticError: 3 is odd')
    ):
        found = mfld.sweep(functions.odd_fails, {"a": [2, 3, 4]}, path, executor=0)
    np.testing.assert_array_equal(found.column("value"), [2, np.nan, 4])
    assert "in odd_fails" in found.failures[0]["error"]
    with pytest.warns(RuntimeWarning, match="1 of 3 runs failed"):
        assert mfld.sweep(functions.odd_fails, {"a": [2, 3, 4]}, path, executor=0).n_new == 1


def test_results_that_are_no_json_fail_and_nan_is_kept():
    with pytest.warns(RuntimeWarning, match="Object of type set|set is no value of JSON"):
        mfld.sweep(lambda a: {"x": {1, 2}}, {"a": [1]}, executor=0)
    assert np.isnan(mfld.sweep(lambda a: np.float32("nan"), {"a": [1]}, executor=0).column("value")).all()


@pytest.mark.parametrize("executor", [0, 1])
def test_a_run_that_asks_python_to_exit_fails_alone(functions, executor):
    with pytest.warns(RuntimeWarning, match="2 of 2 runs failed, .*: SystemExit: 3"):
        mfld.sweep(functions.ends, {"a": [3, 4]}, executor=executor)


def test_columns_have_one_shape(functions):
    found = mfld.sweep(functions.ragged, {"a": [1, 2]}, executor=0)
    with pytest.raises(ValueError, match="'value' must have one shape in all runs to be a column"):
        found.column("value")


def test_empty_lines_in_the_file_do_no_harm(functions, tmp_path):
    path = tmp_path / "runs.jsonl"
    mfld.sweep(functions.ragged, {"a": [1, 2]}, path, executor=0)
    path.write_text(path.read_text().replace("\n", "\n\n"))
    found = mfld.sweep(functions.ragged, {"a": [1, 2, 3]}, path, executor=0)
    assert found.n_new == 1
    assert len(path.read_text().split("\n")) == 6  # what was there stays


def test_a_run_that_kills_its_worker_takes_no_other_along(functions, tmp_path):
    path = tmp_path / "runs.jsonl"
    with pytest.warns(RuntimeWarning, match=r'1 of 6 runs failed, the first at {"a": 3}: the worker died in this run'):
        found = mfld.sweep(functions.killed_at_three, {"a": range(6)}, path, executor=2)
    np.testing.assert_array_equal(found.column("value"), [0, 1, 4, np.nan, 16, 25])
    assert len(path.read_text().splitlines()) == 6


def test_a_changed_function_makes_its_runs_again(tmp_path):
    path = tmp_path / "runs.jsonl"
    scale = 2.0
    mfld.sweep(lambda a: a * scale, {"a": [1, 2]}, path, executor=0)
    scale = 3.0
    with pytest.warns(RuntimeWarning, match="2 runs in .* were made by another version of .* and are made again"):
        again = mfld.sweep(lambda a: a * scale, {"a": [1, 2]}, path, executor=0)
    assert again.column("value").tolist() == [3.0, 6.0]
    assert len(path.read_text().splitlines()) == 4


def test_kill_9_loses_only_what_was_under_way(functions, tmp_path):
    path = tmp_path / "runs.jsonl"
    script = tmp_path / "script.py"
    script.write_text(
        "import mfld, sweep_functions\n"
        "if __name__ == '__main__':\n"
        f"    mfld.sweep(sweep_functions.slow, {{'a': range(200)}}, {str(path)!r}, executor=2)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    process = subprocess.Popen([sys.executable, script], env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while (not path.exists() or path.read_bytes().count(b"\n") < 10) and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(BlockingIOError, match="is written by another sweep"):
            mfld.sweep(functions.slow, {"a": range(200)}, path, executor=0)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    there = path.read_bytes().count(b"\n")
    assert 10 <= there < 200
    with ThreadPoolExecutor(40) as threads:
        found = mfld.sweep(functions.slow, {"a": range(200)}, path, executor=threads)
    assert found.n_new == 200 - there
    assert found.column("value").tolist() == list(range(200))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"function": 3}, TypeError, "function must be callable|function must be a function"),
        ({"grid": 3}, TypeError, "grid must be a dict of iterables or a list of dicts, got int"),
        ({"grid": {"a": 3}}, TypeError, r"grid\['a'\] must be an iterable of values, got 3"),
        ({"grid": {"a": "abc"}}, TypeError, r"grid\['a'\] must be an iterable of values, got 'abc'"),
        ({"grid": {"a": []}}, ValueError, r"grid\['a'\] must hold at least one value, got none"),
        ({"grid": {"a b": [1]}}, ValueError, "grid must have names of arguments, got 'a b'"),
        ({"grid": {"a": [1, 1]}}, ValueError, "grid must hold each point once, got"),
        ({"grid": {"a": [mfld.SVRG(3)]}}, TypeError, "build other objects within the function"),
        ({"grid": {"a": [float("nan")]}}, TypeError, "must be made of finite numbers"),
        ({"seed": -1}, ValueError, "seed must be between 0 and"),
        ({"executor": "two"}, TypeError, "executor must be None, a number of processes"),
        ({"executor": -1}, ValueError, "executor must be at least 0"),
        ({"executor": 2}, TypeError, "function must be one that a module defines"),
    ],
)
def test_misuse(arguments, error, message):
    with pytest.raises(error, match=message):
        mfld.sweep(**{"function": lambda a: a, "grid": {"a": [1]}, "executor": 0, **arguments})


@pytest.mark.parametrize("place", ["/dev/null", "folder", "pipe"])
def test_what_is_no_file_is_refused(functions, place, tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=f"path must be a file, or a new one, got .*{place}, which is"):
        mfld.sweep(functions.product, GRID, tmp_path / place)


def test_a_file_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="path must be a file of a sweep; line 1 of"):
        mfld.sweep(lambda a: a, {"a": [1]}, path, executor=0)
    assert path.read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize(
    "text",
    ["a letter without an end of line", '{"other": 1}', '{"parameters": {"a": 1}}\nabc', "[" * 200_000 + "\n"],
    ids=["letter", "object", "second", "deep"],
)
def test_a_file_that_is_of_no_sweep_is_left_as_it_is(functions, text, tmp_path):
    path = tmp_path / "letter.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"path must be a file of a sweep; line \d of .*letter.txt is none"):
        mfld.sweep(functions.product, GRID, path, executor=0)
    assert path.read_text() == text
