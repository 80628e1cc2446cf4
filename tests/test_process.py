"""The library as part of a process: instruction-set levels, threads, forks, signals, other Python threads."""

import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

import mfld
from mfld import _core

BUILT = sorted(_core.built_levels())
OPENMP = pytest.mark.skipif(not mfld.show_config("dicts")["openmp"], reason="built without OpenMP")

# A problem for other processes.
PROBLEM = """
    import numpy as np
    import mfld

    def make_problem(n_particles=400, n=1000, n_features=20, num_threads=2):
        rng = np.random.default_rng(0)
        inputs = rng.normal(size=(n, n_features))
        model = mfld.TwoLayerNetwork(n_features)
        risk = mfld.EmpiricalRisk(model, inputs, np.sign(inputs[:, 0]), loss="logistic", l2=1e-3)
        return risk, mfld.MFLD(n_particles, step_size=0.1, temperature=1e-3, num_threads=num_threads)

    def digest(particles):
        import hashlib
        return hashlib.sha256(particles.tobytes()).hexdigest()
"""


def python(code, timeout=60, **environment):
    """Output of a fresh interpreter; it must end well."""
    done = run_python(code, timeout, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def run_python(code, timeout=60, **environment):
    clean = {name: value for name, value in os.environ.items() if name not in ("MFLD_ISA", "OMP_NUM_THREADS")}
    source = textwrap.dedent(PROBLEM) + textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**clean, **environment},
        check=False,
    )


# ---- instruction-set levels ------------------------------------------------------------------------------------------


def test_the_best_level_is_the_default():
    assert python("print(mfld.show_config('dicts')['level'])") == _core.available_levels()[0]


@pytest.mark.parametrize("name", BUILT)
def test_a_level_can_be_forced(name):
    done = run_python("print(mfld.show_config('dicts')['level'])", MFLD_ISA=name)
    if name in _core.available_levels():
        assert done.stdout.strip() == name, done.stderr
    else:
        assert f"MFLD_ISA='{name}' is built, but this processor does not run it" in done.stderr


def test_a_level_that_is_not_built_is_an_error():
    done = run_python("print(mfld.show_config('dicts')['level'])", MFLD_ISA="v9")
    assert done.returncode != 0
    assert f"ImportError: mfld: MFLD_ISA='v9' is not among the built levels {BUILT}" in done.stderr


def test_an_empty_choice_is_no_choice():
    assert python("print(mfld.show_config('dicts')['level'])", MFLD_ISA="") == _core.available_levels()[0]


@pytest.mark.parametrize("name", BUILT)
def test_a_level_that_the_processor_lacks_is_an_error(name, monkeypatch):
    monkeypatch.setenv("MFLD_ISA", name)
    monkeypatch.setattr(_core._binding, "cpu_runs", lambda level: level != name)
    with pytest.raises(ImportError, match=f"MFLD_ISA='{name}' is built, but this processor does not run it"):
        _core.load()
    monkeypatch.delenv("MFLD_ISA")
    if len(BUILT) > 1:  # and by default another one is taken
        assert _core.load().isa != name


def test_a_processor_that_runs_no_level_is_an_error(monkeypatch):
    monkeypatch.delenv("MFLD_ISA", raising=False)
    monkeypatch.setattr(_core._binding, "cpu_runs", lambda level: False)
    with pytest.raises(ImportError, match="no build of the kernels runs on this processor; built: "):
        _core.load()


def test_levels_agree():
    """Sums have other shapes from level to level; a map that contracts does not let their roundings grow."""
    code = "risk, solver = make_problem(); print(*solver.run(risk, 30).particles.ravel()[:200])"
    outputs = [np.array(python(code, MFLD_ISA=name).split(), float) for name in _core.available_levels()]
    for output in outputs[1:]:
        # 30 steps, each rounds particles of size 1 to 4 and adds noise that differs by 4e-7 * 0.014.
        np.testing.assert_allclose(output, outputs[0], rtol=0, atol=1e-5)


# ---- threads ---------------------------------------------------------------------------------------------------------


@OPENMP
def test_omp_num_threads_is_heard():
    for number in ("1", "3"):
        assert python("print(mfld.show_config('dicts')['max_threads'])", OMP_NUM_THREADS=number) == number


@OPENMP
def test_threads_that_are_asked_for_come():
    # Counted by the system, while calls run.
    code = """
        import os, threading, time
        risk, solver = make_problem(2000, 4000, num_threads=3)
        before, seen = len(os.listdir("/proc/self/task")), []
        def watch():
            for _ in range(100):
                seen.append(len(os.listdir("/proc/self/task")))
                time.sleep(0.01)
        watcher = threading.Thread(target=watch)
        watcher.start()
        while watcher.is_alive():
            solver.run(risk, 1)
        print(max(seen) - before - 1)
    """
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("counts threads through /proc")
    assert int(python(code)) >= 2  # beside the calling one; other libraries may start some of their own


@OPENMP
@pytest.mark.parametrize(
    "environment", [{"OMP_THREAD_LIMIT": "1"}, {"OMP_DYNAMIC": "true"}, {"OMP_WAIT_POLICY": "active"}], ids=str
)
def test_fewer_threads_than_asked_for_do_not_hang_or_change_a_bit(environment):
    # A team that waits for a member that never came would wait forever.
    code = "risk, solver = make_problem(num_threads=5); print(digest(solver.run(risk, 5).particles))"
    assert python(code, **environment) == python(code)


@OPENMP
def test_threadpoolctl_limits_the_calling_thread():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    before = mfld.show_config("dicts")["max_threads"]
    with threadpoolctl.threadpool_limits(1, user_api="openmp"):
        assert mfld.show_config("dicts")["max_threads"] == 1
    assert mfld.show_config("dicts")["max_threads"] == before


def make_problem():
    names = {}
    exec(textwrap.dedent(PROBLEM), names)
    return names["make_problem"]()


def test_python_threads_may_call_at_once():
    risk, solver = make_problem()
    alone = [solver.run(risk, 10, seed=seed).particles.tobytes() for seed in range(4)]
    together = [None] * 4
    start = threading.Barrier(4)

    def work(seed):
        start.wait()
        together[seed] = [solver.run(risk, 10, seed=seed).particles.tobytes() for _ in range(3)]

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert together == [[result] * 3 for result in alone]


def test_other_python_threads_run_meanwhile():
    risk, solver = make_problem()
    solver.run(risk, 1)
    ticks, done = [0], threading.Event()

    def tick():
        while not done.is_set():
            ticks[0] += 1

    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        before = ticks[0]
        solver.run(risk, 100, record_every=())
        # With the interpreter lock held there would be none; how many there are is the machine's affair.
        assert ticks[0] - before > 100
    finally:
        done.set()
        ticker.join()


@pytest.mark.parametrize(
    "objective", ["risk", "mfld.Potential(lambda x: x, n_coordinates=3)"], ids=["one call", "many calls"]
)
def test_an_interpreter_may_end_during_a_run(objective):
    """A thread that Python would end within a kernel must not end the process."""
    code = f"""
        import threading, time
        risk, solver = make_problem()
        threading.Thread(target=lambda: solver.run({objective}, 10**7), daemon=True).start()
        time.sleep(0.2)
        print("left")
    """
    for _ in range(2):
        assert python(code) == "left"


def test_sub_interpreters_are_refused():
    code = """
        import importlib, sys
        for name in ("_interpreters", "_xxsubinterpreters"):
            try:
                interpreters = importlib.import_module(name)
                break
            except ImportError:
                pass
        other = interpreters.create()
        code = "import sys, warnings; sys.path[:] = {}; warnings.simplefilter('ignore'); import mfld".format(sys.path)
        try:
            found = interpreters.run_string(other, code)
        except Exception as error:
            found = error
        print(found)
    """
    found = python(code)
    # NumPy may be the first to say so, or not.
    assert (
        "this is a sub-interpreter: start a process" in found or "does not support loading in subinterpreters" in found
    )


# ---- forks -----------------------------------------------------------------------------------------------------------


def test_fork_after_use_does_not_hang():
    code = """
        import multiprocessing
        risk, solver = make_problem()
        expected = digest(solver.run(risk, 5).particles)

        def child(queue):
            queue.put(digest(solver.run(risk, 5).particles))

        context = multiprocessing.get_context("fork")
        for _ in range(3):  # and the parent goes on in between
            queue = context.Queue()
            process = context.Process(target=child, args=(queue,))
            process.start()
            assert queue.get(timeout=30) == expected
            process.join(30)
            assert process.exitcode == 0
            assert digest(solver.run(risk, 5).particles) == expected
        print("ok")
    """
    assert python(code, timeout=120) == "ok"


def test_fork_from_another_level_does_not_hang():
    """The pool of threads belongs to the process: whichever build of the kernels made it, a fork gives it back."""
    code = """
        import os
        from mfld import _core
        for level in _core.available_levels():
            _core.backend = _core.load(level)
            risk, solver = make_problem()
            solver.run(risk, 5)
            pid = os.fork()
            if pid == 0:
                solver.run(risk, 5)
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        print("ok")
    """
    assert python(code) == "ok"


# ---- signals ---------------------------------------------------------------------------------------------------------

INTERRUPT = """
    import os, signal, sys, threading, time
    risk, solver = make_problem({sizes})
    sent = []
    def interrupt():
        time.sleep(0.4)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt).start()
    try:
        solver.run(risk, 10**9, seed=3, record_every=())
    except KeyboardInterrupt as stop:
        answered = time.monotonic() - sent[0]
        state = stop.state
    # Whole steps only: the state is the one that as many steps lead to.
    again = solver.run(risk, state.step, seed=3, record_every=())
    print(answered, state.step, digest(again.particles) == digest(state.particles))
"""


@pytest.mark.parametrize(
    "sizes",
    [
        "3, 5, 2, num_threads=1",  # steps of microseconds
        "2000, 500",  # of milliseconds
        "8000, 8000, 30",  # of tenths of a second
        "20000, 20000, 50, num_threads=1",  # of seconds
        "20000, 20000, 50, num_threads=2",
    ],
)
def test_ctrl_c_is_answered_within_steps(sizes):
    output = python(INTERRUPT.format(sizes=sizes), timeout=120)
    answered, step, replayed = output.split()
    print(f"Ctrl-C answered after {float(answered) * 1000:.0f} ms, {step} steps done, sizes {sizes}")
    # The aim is 0.1 s: 0.05 between two looks at pending signals, then a block of work. The bound is for busy machines.
    assert float(answered) < 0.5
    assert replayed == "True"
    if sizes.startswith("20000"):
        assert int(step) <= 3  # so it was answered inside a step


def test_a_handler_that_raises_something_else():
    code = """
        import signal
        risk, solver = make_problem(2000, 500)
        class Enough(Exception):
            pass
        def handler(number, frame):
            raise Enough("that will do")
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        try:
            solver.run(risk, 10**9, record_every=())
        except Enough as stop:
            print(stop, stop.state.step > 0)
    """
    assert python(code) == "that will do True"


def test_a_signal_during_the_step_that_diverges():
    # Either may win, but one of them must, and the state that comes with it is good. Most of this step is its move,
    # where nobody looks for signals: that the handler raises is seen by the next step, beside the divergence.
    code = """
        import signal
        model = mfld.TwoLayerNetwork(600, activation="identity", readout="fixed", bias=False)
        rng = np.random.default_rng(0)
        risk = mfld.EmpiricalRisk(model, rng.normal(size=(12, 600)), np.ones(12), loss="squared")
        solver = mfld.MFLD(30_000, step_size=1e6, temperature=1.0, dtype="float64", num_threads=1)
        start = solver.init(risk, particles=np.full((30_000, 600), 1e303))  # the first step overflows

        class Enough(Exception):
            pass

        def handler(number, frame):
            global calls
            calls += 1
            if calls == patience:
                raise Enough

        signal.signal(signal.SIGALRM, handler)
        outcomes = set()
        for patience in [*range(1, 11), 10**9]:
            calls = 0
            try:
                # One signal at a time is pending, so a look for signals is a call of the handler.
                signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
                solver.run(risk, 100, state=start, record_every=())
            except (Enough, mfld.DivergenceError) as error:
                patience = 0
                signal.setitimer(signal.ITIMER_REAL, 0)
                outcomes.add(type(error).__name__)
                assert np.isfinite(error.state.particles).all(), error
        print(*sorted(outcomes))
    """
    assert python(code) == "DivergenceError Enough"


def test_a_handler_that_returns_does_not_stop_a_run():
    code = """
        import signal
        risk, solver = make_problem(300, 500)
        calls = []
        signal.signal(signal.SIGALRM, lambda number, frame: calls.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.02)
        state = solver.run(risk, 2000, record_every=()).state
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(state.step, len(calls) > 0)
    """
    assert python(code) == "2000 True"


@pytest.mark.parametrize("stage", ["model.predict(particles, inputs)", "risk.gradient(particles)"])
def test_ctrl_c_is_answered_within_stages(stage):
    code = f"""
        import os, signal, threading, time
        risk, _ = make_problem(1, 12000, 100)
        model, inputs = risk.model, risk.inputs
        particles = model.initial_particles(12000)
        sent = []
        def interrupt():
            time.sleep(0.2)
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt).start()
        try:
            while True:
                {stage}
        except KeyboardInterrupt:
            print(time.monotonic() - sent[0])
    """
    assert float(python(code)) < 0.5


# ---- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS, /proc")
@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_kernel_without_memory_raises_and_can_be_called_again(num_threads):
    code = f"""
        import resource
        from mfld import _core
        risk, solver = make_problem(num_threads={num_threads})
        before = digest(solver.run(risk, 5).particles)
        large = mfld.MFLD(200_000, step_size=0.1, temperature=1e-3, num_threads={num_threads})
        start = large.init(risk, seed=1)
        as_it_was = digest(start.particles)
        calls = {{
            # With the rows of all draws there is a set of them, twice as large.
            "batch": lambda: _core.backend.batch(1, 0, 10**9, 2**22),
            "particle_batches": lambda: _core.backend.particle_batches(1, 0, 10**9, 2**21, 2, 0, {num_threads}),
            # Activations of 48 rows, of all particles, take twice as much as these.
            "advance": lambda: large.run(risk, 1, state=start),
        }}
        with open("/proc/self/statm") as f:
            used = int(f.read().split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**25 + 2**24, most))
        for name, call in calls.items():
            try:
                call()
            except MemoryError as error:
                print(name, type(error).__name__)  # NumPy's own has another name
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        assert digest(start.particles) == as_it_was
        for call in calls.values():
            call()
        print(digest(solver.run(risk, 5).particles) == before)
    """
    assert python(code) == "batch MemoryError\nparticle_batches MemoryError\nadvance MemoryError\nTrue"


# ---- the process around ----------------------------------------------------------------------------------------------


def test_import_is_light():
    code = """
        import os, subprocess, sys
        def seconds(statement):  # of work, whatever else the machine does
            def once():
                start = os.times()
                subprocess.run([sys.executable, "-c", statement], check=True)
                end = os.times()
                return end.children_user - start.children_user + end.children_system - start.children_system
            return min(once() for _ in range(3))
        print(seconds("import numpy, mfld") - seconds("import numpy"))
    """
    added = float(python(code))
    print(f"import mfld adds {added * 1000:.0f} ms to import numpy")
    assert added < 1.0
    # What the extras bring is imported where it is used.
    heavy = ["scipy", "matplotlib", "sklearn", "pandas", "tqdm", "torch"]
    assert python(f"import sys; print([name for name in {heavy} if name in sys.modules])") == "[]"


def test_floating_point_mode_of_the_process_is_left_alone():
    # A library linked with -ffast-math would flush subnormal numbers to zero for everybody.
    code = """
        risk, solver = make_problem()
        solver.run(risk, 2)
        print(np.float64(5e-324) * 1 > 0, np.nextafter(np.float32(0), np.float32(1)) * np.float32(1) > 0)
    """
    assert python(code) == "True True"
