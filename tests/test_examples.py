"""The examples of the documentation run: docstrings of all modules and the Python blocks of README and guide."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import mfld

MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(mfld.__path__, "mfld.")
    if not name.startswith(("mfld._core", "mfld.__main__"))
]
ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    results = doctest.testmod(importlib.import_module(name), verbose=False)
    assert results.failed == 0


@pytest.mark.parametrize("name", [name for name in mfld.__all__ if callable(getattr(mfld, name))])
def test_every_public_object_has_an_example(name):
    assert any(test.examples for test in doctest.DocTestFinder().find(getattr(mfld, name), name))


@pytest.mark.parametrize(
    "page", ["README.md", "docs/guide.md", "docs/how-to-add.md", "docs/which-algorithm.md", "docs/signed-measures.md"]
)
def test_page(page, tmp_path, monkeypatch):
    path = ROOT / page
    blocks = re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks:  # one after the other, as a reader would
        if ">>>" in block:
            runner = doctest.DocTestRunner(verbose=False)
            runner.run(doctest.DocTestParser().get_doctest(block, names, page, str(path), 0), clear_globs=False)
            assert runner.failures == 0
        else:
            exec(compile(block, str(path), "exec"), names)
