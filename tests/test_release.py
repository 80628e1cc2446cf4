"""What a release says of itself: one version, told in the changelog, and a licence that files agree on."""

import re
import tomllib
from pathlib import Path

import mfld

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_core_has_the_version_of_the_project():
    assert mfld.__version__ == PROJECT["version"]


def test_the_changelog_begins_with_the_version():
    sections = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sections[0].split()[0] == PROJECT["version"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ \((unreleased|\d{4}-\d{2}-\d{2})\)", section) for section in sections)
    assert not any("unreleased" in section for section in sections[1:])


def test_the_version_stands_nowhere_else():
    for name in ("CITATION.cff", "CMakeLists.txt", "docs/conf.py"):
        assert PROJECT["version"] not in (ROOT / name).read_text(encoding="utf-8"), name


def test_the_citation_has_the_name_and_licence_of_the_project():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(rf"^license: {re.escape(PROJECT['license'])}$", citation, flags=re.MULTILINE)
    assert re.search(rf'^title: "{PROJECT["name"]}: ', citation, flags=re.MULTILINE)
