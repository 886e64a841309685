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

# Written by others, and kept as they are.
FOREIGN = ("protos/google/",)
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


def offending_lines(pattern: re.Pattern[str]) -> list[str]:
    """Every line that `pattern` finds, with its place."""
    return [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}"
        for name, text in text_files()
        for match in pattern.finditer(text)
    ]


def test_no_file_names_a_package_index():
    """Where packages come from is the business of the machine, not of this repository."""
    assert offending_lines(INDEX_ADDRESS) == []


def test_no_file_names_a_home_folder():
    """Nothing in this repository depends on the folders of one user."""
    assert offending_lines(HOME_PATH) == []


@pytest.mark.parametrize("name", ["run.txt", "dev.txt", "build.txt"])
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
