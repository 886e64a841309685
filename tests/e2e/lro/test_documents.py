"""docs/google-clients.md: every program in it is a part of a program that the tests run."""

import re
import textwrap

import pytest

from tests.e2e.lro.programs import ROOT, STOCK
from tests.unit.documents import blocks

DOCUMENT = ROOT / "docs" / "google-clients.md"
SOURCES = {
    "python": ("blocking.py", "coroutines.py"),
    "js": ("node.cjs",),
    "go": ("go/main.go",),
    "java": ("java/src/Stock.java",),
}


@pytest.mark.parametrize("language", SOURCES)
def test_programs_are_those_of_the_tests(language):
    """Each paragraph of each program in the document stands in a program of the tests."""
    sources = [(STOCK / name).read_text(encoding="utf-8") for name in SOURCES[language]]
    found = [each + textwrap.dedent(indented(each)) for each in sources]
    examples = blocks(DOCUMENT, language)
    assert len(examples) == len(SOURCES[language])
    for example in examples:
        for paragraph in re.split(r"\n{2,}", example.strip()):
            assert any(paragraph in source for source in found), paragraph


def indented(source: str) -> str:
    """Return the indented lines of a program: in Java a function stands in a class."""
    return "\n".join(line for line in source.splitlines() if not line or line.startswith("  "))
