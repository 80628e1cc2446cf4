"""The examples of the documentation run: docstrings of all modules and the Python blocks of the README."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest

import mfld

MODULES = [name for _, name, _ in pkgutil.walk_packages(mfld.__path__, "mfld.") if not name.startswith("mfld._core")]
README = Path(__file__).parent.parent / "README.md"


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    results = doctest.testmod(importlib.import_module(name), verbose=False)
    assert results.failed == 0


@pytest.mark.parametrize("name", [name for name in mfld.__all__ if callable(getattr(mfld, name))])
def test_every_public_object_has_an_example(name):
    assert any(test.examples for test in doctest.DocTestFinder().find(getattr(mfld, name), name))


def test_readme(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    names = {"np": np}
    for block in blocks:  # one after the other, as a reader would
        if ">>>" in block:
            runner = doctest.DocTestRunner(verbose=False)
            runner.run(
                doctest.DocTestParser().get_doctest(block, names, "README.md", str(README), 0), clear_globs=False
            )
            assert runner.failures == 0
        else:
            exec(compile(block, str(README), "exec"), names)
