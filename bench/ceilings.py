"""This machine's ceilings, from the C++ program of the same name, compiled for the level that mfld runs at."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "bench" / "cpp" / "ceilings.cpp"
INCLUDE = ROOT / "cpp" / "include"
BUILD = ROOT / "build" / "bench"

FLAGS = ["-std=c++20", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wno-psabi", "-pthread"]
LEVEL_FLAGS = {  # those of the kernels (CMakeLists.txt)
    "base": ["-march=x86-64-v2"],
    "v3": ["-march=x86-64-v3"],
    "v4": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
    "native": ["-march=native"],
}


def compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++") or shutil.which("clang++")


def build(level: str) -> Path | None:
    """Compile the program, unless that was done before; None without a compiler."""
    cxx = compiler()
    if cxx is None:
        return None
    flags = FLAGS + (LEVEL_FLAGS[level] if os.uname().machine in ("x86_64", "amd64") else [])
    sources = [SOURCE, SOURCE.with_name("measure.hpp"), *sorted(INCLUDE.rglob("*.h*"))]
    content = b"".join(path.read_bytes() for path in sources) + repr((cxx, flags)).encode()
    program = BUILD / f"ceilings-{level}-{hashlib.sha256(content).hexdigest()[:12]}"
    if not program.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        subprocess.run([cxx, *flags, f"-I{INCLUDE}", str(SOURCE), "-o", str(program)], check=True)
    return program


def measure(level: str, threads: Iterable[int]) -> list[dict[str, Any]]:
    """Entries of what, precision, threads, rate and unit; none without a compiler."""
    program = build(level)
    if program is None:
        return []
    output = subprocess.run([program, *map(str, sorted(set(threads)))], check=True, capture_output=True, text=True)
    return json.loads(output.stdout)


def best(*measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The highest of several measurements: a ceiling is what the machine can do, not what it did in a bad moment."""
    return [max(same, key=lambda entry: entry["rate"]) for same in zip(*measured, strict=True)]


def table(entries: list[dict[str, Any]]) -> dict[tuple[str, str, int], float]:
    return {(entry["what"], entry["precision"], entry["threads"]): entry["rate"] for entry in entries}
