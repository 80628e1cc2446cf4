"""The site has a page for everything: each public object, each document."""

import re
from pathlib import Path

import mfld

DOCS = Path(__file__).parent.parent / "docs"


def test_every_public_name_is_on_the_page_of_the_api():
    named = set(re.findall(r"^   ~?mfld\.(\S+)$", (DOCS / "api.md").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert sorted(set(mfld.__all__) - named - {name.partition(".")[0] for name in named} - {"__version__"}) == []


def test_every_document_is_in_the_contents():
    index = (DOCS / "index.md").read_text(encoding="utf-8").splitlines()
    assert sorted({page.stem for page in DOCS.glob("*.md")} - {"index"} - set(index)) == []


def test_links_between_documents_lead_somewhere():
    for page in (DOCS.parent / "README.md", *DOCS.glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page.name, target)
