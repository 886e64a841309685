"""Rules for the files of this repository that no other tool checks."""

import ast
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Written so that this file does not match itself.
INDEX_ADDRESS = re.compile(
    r"-{2}(extra-)?index-url|-{2}find-links|files\.python[h]osted|/simp[l]e(/|\b)"
    r"|\"resolved\": \"http|^\s*registry\s*=\s*[\"']?http",
    re.IGNORECASE | re.MULTILINE,
)
HOME_PATH = re.compile(r"(?<![\w.-])/(root|home/[\w.-]+|Users/[\w.-]+)/")
REQUIREMENT = re.compile(r"^[a-z0-9][a-z0-9.-]*(\[[a-z0-9,-]+\])?==[^\s;]+( ; [^\\]+)? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")

# The words of the field and plain English, one row for each rule: a reader of another company
# understands every name and every sentence without a glossary of our own.
_PROSE = (
    "service/",
    "clients/",
    "protos/",
    "docs/",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "tests/e2e/",
    "tests/faults/",
)
_TESTS = ("tests/",)
_OPENING = r"(?:^[^\w\n]*|[.:;!?]\s+)"
LANGUAGE = {
    "a docstring or a proto comment is an imperative or a noun phrase": (
        _PROSE,
        r"(?:\"\"\"|^\s*// )(?:What|Who|Whom|Whose|Whoever|Whatever|Whether)\b",
    ),
    "a sentence has its subject first": (
        _PROSE,
        _OPENING + r"(?:Who|Whom|Whose|Whoever|Whomever)\b(?![^.\n]*\?)",
    ),
    "a thing is named, not denied": (_PROSE, r"\b(?:is|are|was|be) none\b|\bthat (?:is|are) no\b"),
    "the actor is named": (_PROSE, r"\b(?:some|no|every|any)body\b"),
    "a function returns or raises, a caller gets": (
        _PROSE,
        r"\b[Tt]ell(?:s|ing)? whether\b|\b(?:is|are|be|was|were|being) told\b(?! apart)",
    ),
    "transition": (
        _PROSE,
        r"ILLEGAL_MOVE|\b(?:an?|the|each|every|this|one) move\b|\b(?:of|the|two|all) moves\b",
    ),
    "batcher, batching": (_PROSE, r"(?:\b|_)(?:lanes?|gather(?:s|ed|ing)?)(?:\b|_)(?!\()"),
    "interceptor": (_PROSE, r"\b(?:inner|outer|next|last|first|every|each) links?\b(?! of a page)"),
    "notification, subscriber": (_PROSE, r"(?:\b|_)(?:hears?|heard|hearing|heed(?:s|ed)?)(?:\b|_)"),
    "purge, delete": (_PROSE, r"\b(?:forgets?|forgotten|forgetting)\b"),
    "request, new operation": (_PROSE, r"(?:\b|_)(?:proposals?|proposed|drafts?)(?:\b|_)"),
    "limits have units and say max": (
        _PROSE,
        r"\b_?(?:MOST|LONGEST|LARGEST|PATIENCE|FAREWELL|ENOUGH)(?:_[A-Z_]+)?\b",
    ),
    "tests stand without the numbers of a specification": (_TESTS, r"(?<!noqa: )\bB\d{2,3}\b"),
}
GERUND = re.compile(r"^(?:service|clients)/(?:[^/]+/)*[a-z_]*ing\.py$")
# Nouns of the field that end like one.
NOUNS = {"batching.py", "batch_scheduling.py", "serving.py", "signing.py", "tracing.py"}

# Written by others, and kept as they are.
FOREIGN = ("protos/google/",)
GENERATED = re.compile(r"^[^:]*/gen/")
WITHOUT_GIT = {".git", ".venv", ".cache", "__pycache__", "node_modules", "target", "build", "dist"}


def repository_files() -> list[Path]:
    """The files that are, or would be, tracked; all files when git cannot tell."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return sorted(walk())
    names = {name for name in listing.stdout.split("\0") if name}
    return sorted(ROOT / name for name in names if (ROOT / name).is_file())


def walk() -> Iterator[Path]:
    """Every file outside of the folders that can be made again."""
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in WITHOUT_GIT]
        yield from (Path(folder, name) for name in files)


def text_files() -> Iterator[tuple[str, str]]:
    """The name and the text of every file that is text and ours."""
    for path in repository_files():
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(FOREIGN):
            try:
                yield name, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def offending_lines(pattern: re.Pattern[str], within: tuple[str, ...] = ("",)) -> list[str]:
    """Every place that `pattern` finds, as file:line: text."""
    return [
        f"{name}:{text.count(chr(10), 0, match.end() - 1) + 1}: {' '.join(match[0].split())}"
        for name, text in text_files()
        if name.startswith(within)
        for match in pattern.finditer(text)
    ]


def test_no_file_names_a_package_index():
    """Where packages come from is the business of the machine, not of this repository."""
    assert offending_lines(INDEX_ADDRESS) == []


def test_no_file_names_a_home_folder():
    """Nothing in this repository depends on the folders of one user."""
    assert offending_lines(HOME_PATH) == []


@pytest.mark.parametrize("name", ["uv.txt", "run.txt", "dev.txt", "build.txt"])
def test_requirements_are_pinned_by_hash(name):
    """Every requirement names one version and the hashes of its files, and nothing else."""
    lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    content = [line for line in lines if line and not line.lstrip().startswith("#")]
    assert content
    for line, following in zip(content, [*content[1:], ""], strict=True):
        assert HASH.match(line) or REQUIREMENT.match(line), line
        assert HASH.match(line) or HASH.match(following), f"without a hash: {line}"


def test_requirements_agree():
    """What two requirements files have in common they have in the same version."""
    pins: dict[str, set[str]] = {}
    for path in (ROOT / "requirements").glob("*.txt"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if REQUIREMENT.match(line):
                package, version = line.removesuffix(" \\").split(" ; ")[0].split("==")
                pins.setdefault(package, set()).add(version)
    assert {package: found for package, found in pins.items() if len(found) > 1} == {}


def test_every_test_says_what_it_proves():
    """Every test has a docstring of one sentence, so that the list of tests reads as a text."""
    silent = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                sentence = (ast.get_docstring(node) or "").split("\n\n")[0]
                if node.name.startswith("test_") and not sentence.endswith("."):
                    silent.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert silent == []


@pytest.mark.parametrize("rule", LANGUAGE)
def test_words_and_sentences(rule):
    """Names and sentences use the words of the field, and plain English."""
    within, pattern = LANGUAGE[rule]
    found = offending_lines(re.compile(pattern, re.MULTILINE), within)
    ours = [place for place in found if not GENERATED.search(place)]
    assert ours == [], f"{rule}: {len(ours)} hits"


def test_modules_are_nouns():
    """A module is called after what it defines, not after an activity."""
    names = [path.relative_to(ROOT).as_posix() for path in repository_files()]
    found = [name for name in names if GERUND.match(name)]
    assert [name for name in found if name.rpartition("/")[2] not in NOUNS] == []
