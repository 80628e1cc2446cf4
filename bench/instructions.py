"""Instructions of the core for a fixed small run, against committed figures: a guard against slow code without a clock.

    python bench/instructions.py             exit status 1 where a figure grew by more than 3 %
    python bench/instructions.py --update    writes the figures of this compiler to bench/instructions.json

Under valgrind's callgrind, at the level v3 (valgrind knows no AVX-512) and with one thread, a run is the same sequence
of instructions every time. Only those inside the core's shared object are counted. Figures belong to a compiler;
without valgrind, without that level, or with a compiler that has no figures, the guard says so and succeeds. Make new
figures when fewer instructions are needed than before, or when more of them are worth it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

LEVEL = "v3"
TOLERANCE = 0.03
FIGURES = Path(__file__).with_suffix(".json")

# Odd sizes, so that the edges of blocks and panels are in it; large enough that the inner loops dominate.
PROGRAM = """
import sys
import numpy as np
import mfld

estimators = {"full batch": mfld.FullBatch(), "mini-batch": mfld.Minibatch(33), "SVRG": mfld.SVRG(33, 100)}
rng = np.random.default_rng(0)
inputs = rng.standard_normal((301, 37))
model = mfld.TwoLayerNetwork(n_features=37, activation="tanh")
risk = mfld.EmpiricalRisk(model, inputs, np.tanh(inputs[:, 0]), loss="squared", l2=1e-3)
solver = mfld.MFLD(
    200, step_size=1e-3, temperature=1e-4, gradient=estimators[sys.argv[1]], dtype=sys.argv[2], num_threads=1
)
solver.advance(risk, solver.init(risk, seed=0), n_steps=1 if sys.argv[1] == "full batch" else 4)
"""
# One epoch of the bench's own case.
DUAL_PROGRAM = """
import sys
sys.path.insert(0, sys.argv[3])
from cases import Case, make_problem
from peers.mfld_peer import DualAscent

DualAscent(make_problem(Case("P-SDCA", 200, 301, 37, dtype=sys.argv[2], threads=1)), False).run(1)
"""
DUAL = "P-SDCA"
RUNS = [
    (estimator, dtype) for estimator in ("full batch", "mini-batch", "SVRG", DUAL) for dtype in ("float32", "float64")
]


def instructions_in(lines: Iterable[str], shared_object: str) -> int:
    """Instructions of one shared object in a callgrind file, those of what it calls not included.

    The format: ``ob=(id) path`` opens an object, its path stands only at the first use of the id; a cost line is a
    position and a count; the line after ``calls=`` is the inclusive cost of the call.
    """
    paths: dict[str, str] = {}
    inside = after_calls = False
    total = 0
    for line in lines:
        if line.startswith("ob="):
            number, _, path = line[3:].strip().partition(" ")
            if path:
                paths[number] = path
            inside = shared_object in paths[number]
        elif line.startswith("cob="):  # the object of a callee: it may be where a path stands first
            number, _, path = line[4:].strip().partition(" ")
            if path:
                paths[number] = path
        elif line.startswith("calls="):
            after_calls = True
        elif line[:1] in "0123456789+-*":
            if inside and not after_calls:
                total += int(line.split()[-1])
            after_calls = False
    return total


def count(estimator: str, dtype: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        source = DUAL_PROGRAM if estimator == DUAL else PROGRAM
        program = [sys.executable, "-c", source, estimator, dtype, str(Path(__file__).parent)]
        subprocess.run(
            ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *program],
            check=True,
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "MFLD_ISA": LEVEL,
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
                "PYTHONHASHSEED": "0",
            },
        )
        with out.open() as lines:
            return instructions_in(lines, f"_kernels_{LEVEL}.so")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write the figures instead of comparing with them")
    options = parser.parse_args(arguments)

    import mfld  # noqa: PLC0415  after --help

    report = mfld.show_config(mode="dicts")
    if shutil.which("valgrind") is None:
        print("skipped: valgrind is not installed")
        return 0
    if LEVEL not in report["built_levels"]:
        print(f"skipped: the level {LEVEL} is not built")
        return 0
    compiler = report["compiler"]
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    if not options.update and compiler not in figures:
        print(f"skipped: no figures for {compiler}, only for {', '.join(figures) or 'no compiler'}; see --update")
        return 0
    counted = {f"{estimator} {dtype}": count(estimator, dtype) for estimator, dtype in RUNS}
    if options.update:
        figures[compiler] = counted
        FIGURES.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
    failed = False
    for name, instructions in counted.items():
        change = instructions / figures[compiler][name] - 1
        failed |= change > TOLERANCE
        verdict = "" if abs(change) <= TOLERANCE else "  fewer: --update" if change < 0 else "  more"
        print(f"{name:20} {instructions:12,} instructions  {change:+7.2%}{verdict}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
