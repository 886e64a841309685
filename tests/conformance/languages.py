"""The languages whose clients are tested: the rows of ``languages.toml``.

As a program (``python -m tests.conformance.languages``) it prints which ones these are, and why
others are not; with ``--names`` only the names, one a line.

``MILEPOST_TEST_LANGUAGES`` names the languages that must be there, such as ``python,go``: then only
these are tested, and the run fails if a toolchain is missing.
"""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
TABLE: Final = Path(__file__).with_name("languages.toml")
CACHE: Final = ROOT / ".cache"
VARIABLE: Final = "MILEPOST_TEST_LANGUAGES"
BUILD_TIMEOUT_S: Final = 1_800.0


@dataclass(frozen=True)
class Language:
    """A language, and how its testee is built and started."""

    name: str
    folder: Path
    programs: Sequence[str]
    build: Sequence[Sequence[str]]
    start: Sequence[str]

    @property
    def obstacle(self) -> str | None:
        """The reason why it cannot be tested here, or None."""
        if not self.folder.is_dir():
            return "there is no such client"
        missing = [program for program in self.programs if shutil.which(program) is None]
        return f"not installed: {', '.join(missing)}" if missing else None

    def prepare(self) -> None:
        """Build the testee; what is up to date costs little.

        Raises:
            RuntimeError: The build failed.
        """
        CACHE.joinpath("testees").mkdir(parents=True, exist_ok=True)
        for command in self.build:
            done = subprocess.run(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=BUILD_TIMEOUT_S,
                text=True,
                check=False,
            )
            if done.returncode:
                raise RuntimeError(f"{self.name}: {' '.join(command)}\n{done.stdout}")


def read_languages(table: Path = TABLE) -> list[Language]:
    """Return the rows of the table."""
    places = {"root": str(ROOT), "cache": str(CACHE), "python": sys.executable}

    def fill(command: Sequence[str]) -> list[str]:
        return [word.format(**places) for word in command]

    return [
        Language(
            name=name,
            folder=ROOT / row["folder"],
            programs=row["programs"],
            build=[fill(command) for command in row["build"]],
            start=fill(row["start"]),
        )
        for name, row in tomllib.loads(table.read_text(encoding="utf-8")).items()
    ]


def selected(languages: Sequence[Language], environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the names of the languages to test: those that can be, or those that must be."""
    demanded = environ.get(VARIABLE)
    if demanded:
        return [name.strip() for name in demanded.split(",")]
    return [language.name for language in languages if language.obstacle is None]


def main() -> None:
    """Print the languages."""
    languages = read_languages()
    names = selected(languages)
    lines = names if "--names" in sys.argv[1:] else summary(languages, names)
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def summary(languages: Sequence[Language], tested: Sequence[str]) -> list[str]:
    """Return the lines that say which languages were tested, and why the others were not."""
    lines = [f"clients tested: {', '.join(tested) or 'none'}"]
    for language in languages:
        if language.name not in tested:
            reason = language.obstacle or f"not in {VARIABLE}"
            lines.append(f"CLIENT NOT TESTED: {language.name} ({reason})")
    return lines


if __name__ == "__main__":
    main()
