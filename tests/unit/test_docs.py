"""The documents agree with the code: their tables are generated, and their examples run.

``python -m tests.unit.test_docs`` writes the generated parts.
"""

import ast
import json
import re
import shlex
import string
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import pytest
import typer
import yaml
from google.protobuf import descriptor_pool, json_format, message_factory

from milepost import config, telemetry
from milepost.cli import app
from milepost.domain.limits import Limits
from milepost.domain.rates import Allowance
from milepost.domain.transitions import TABLE
from milepost.main.serving import serve
from milepost.supervisor.slot import process_metrics
from tests.unit.documents import (
    ARCHITECTURE,
    GENERATED,
    LIMITS,
    OPERATING,
    ROOT,
    blocks,
    renewed,
    write,
)

RECORDS: Final = sorted((ROOT / "docs/adr").glob("*.md"))
DOCUMENTS: Final = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("clients/README.md"),
        *ROOT.glob("clients/*/README.md"),  # and not those of packages below node_modules
    ]
)
OURS: Final = [path for path in DOCUMENTS if "clients" not in path.parts]
EXAMPLES: Final = sorted((ROOT / "clients").glob("*/examples/*.py"))
MAX_RECORD_LINES: Final = 60
PROGRAM: Final = serve
"""The whole service: its import registers every metric and every service of the protos."""

# --- generated parts ---


@pytest.mark.parametrize(
    ("path", "name"), GENERATED, ids=lambda value: getattr(value, "name", value)
)
def test_generated_part_is_up_to_date(path, name):
    """A generated part of a document is up to date with the code."""
    text = path.read_text(encoding="utf-8")
    assert text == renewed(text, name, GENERATED[path, name]()), "python -m tests.unit.test_docs"


def test_every_limit_is_in_the_table():
    """Every limit of the product is in the table of limits."""
    named = {name for _, much, _ in LIMITS for _, name, _, _ in string.Formatter().parse(much)}
    assert {field.name for kind in (Limits, Allowance) for field in fields(kind)} <= named


def test_diagram_has_the_arrows_of_the_table():
    """The arrows of the diagram are the transitions of the table."""
    text = ARCHITECTURE.read_text(encoding="utf-8")
    drawn = {
        (transition, old, new)
        for old, new, transitions in re.findall(r"^ +(\S+) --> (\S+): (.+)$", text, re.MULTILINE)
        for transition in transitions.split(", ")
    }
    assert drawn == {
        (transition, status, rule.target or "[*]")
        for transition, rule in TABLE.items()
        for status in rule.sources or {"[*]"}
    }


# --- examples ---


def commands(program: str) -> Iterator[list[str]]:
    """Return the words of every command line in our documents that calls `program`."""
    for path in OURS:
        for block in blocks(path, "sh"):
            # A line goes on after a backslash, and inside of quotes.
            text = re.sub(r"(?m)(^|\s)#.*$", "", block.replace("\\\n", " "))
            text = re.sub(r"(?m)=\$\((.*)\)$", r"=\n\1", text)  # the output of a command
            lexer = shlex.shlex(text, posix=True, punctuation_chars="\n|;&>")
            lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
            words: list[str] = []
            for word in [*lexer, "\n"]:
                if not set(word) <= set("\n|;&>"):
                    words.append(word)
                    continue
                while words and re.match(r"\w+=", words[0]):
                    words.pop(0)
                if words and Path(words[0]).name == program:
                    yield words[1:]
                words = []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_of_the_client_need_only_the_client(path):
    """A program of the examples imports the client and the standard library, nothing else."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            package = str(name).partition(".")[0]
            assert package in {*sys.stdlib_module_names, "milepost_client"}, package


def test_grpcurl_examples_fit_the_protos():
    """Every grpcurl command names an existing method, with valid data for its request."""
    called = set()
    for words in commands("grpcurl"):
        if "-d" not in words:
            continue
        service, method = words[-1].split("/")
        described = descriptor_pool.Default().FindServiceByName(service)
        request = message_factory.GetMessageClass(described.methods_by_name[method].input_type)
        data = json.loads(words[words.index("-d") + 1])
        result = data.pop("result", {"@type": "/google.protobuf.Value"})
        assert result["@type"].endswith("/google.protobuf.Value")
        json_format.ParseDict(data, request())
        called.add(method)
    assert {"CreateOperation", "StartOperation", "UpdateProgress", "CompleteOperation"} <= called


def test_commands_are_accepted():
    """Every `milepost` command of the documents has valid arguments."""
    understood = set()
    for words in commands("milepost"):
        command: Any = typer.main.get_command(app)
        names = []
        while hasattr(command, "commands"):
            names.append(words.pop(0))
            command = command.commands[names[-1]]
        command.make_context(" ".join(names), words)
        understood.add(" ".join(names))
    assert {"serve", "migrate", "keys create", "ops create", "ops watch"} <= understood


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_ids_have_the_length_of_those_of_the_service(path):
    """An id in an example may be tried: a shorter one would be refused for its form."""
    lengths = {"op": len("op_") + 24, "msg": len("msg_") + 32}
    text = path.read_text(encoding="utf-8")
    for found in re.finditer(r"\b(op|msg)_[0-9a-f]{6,}\b", text):
        assert len(found[0]) == lengths[found[1]], found[0]


def test_make_targets_exist():
    """Every `make` command of the documents has a target."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):.*## ", text, re.MULTILINE))
    called = {words[0] for words in commands("make")}
    assert {"demo", "test"} <= called <= targets


# --- names ---


def texts() -> Iterator[tuple[str, str]]:
    """Return every text for operators, by file name."""
    deployed = [path for path in sorted((ROOT / "deploy").rglob("*")) if path.is_file()]
    for path in [*DOCUMENTS, ROOT / "compose.yaml", ROOT / "Dockerfile", *deployed]:
        yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def test_variables_are_settings():
    """Every variable that a document, the image or a file of a deployment names is a setting."""
    known = {f"{config.PREFIX}{name.upper()}" for name in config.Settings.model_fields}
    for name, text in texts():
        named = set(re.findall(rf"\b{config.PREFIX}[A-Z_]*[A-Z]", text))
        strange = {each for each in named - known - config.OTHERS if config.TESTS not in each}
        assert not strange, name


def test_containers_use_the_ports_of_the_defaults():
    """The image and the composition use the default ports of the settings."""
    ports = {
        config.Settings.model_fields[name].default.rpartition(":")[2]
        for name in ("listen", "http_listen")
    }
    image = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert set(re.findall(r"_LISTEN=[\d.]+:(\d+)", image)) == ports
    content = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    replica = content["services"]["milepost-1"]
    listening = {
        replica["environment"][f"{config.PREFIX}{name}"].rpartition(":")[2]
        for name in ("LISTEN", "HTTP_LISTEN")
    }
    assert listening == ports


def test_composition_has_settings_that_are_accepted(monkeypatch):
    """The settings that the composition gives to the service are valid."""
    content = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    for service in ("milepost-1", "migrate"):
        for name, value in content["services"][service]["environment"].items():
            monkeypatch.setenv(name, re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value))
        assert not config.load().embedded


def test_image_needs_only_the_setting_for_plaintext(monkeypatch):
    """The image needs only the setting for plaintext, and the error without it names that."""
    image = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    for name, value in re.findall(rf"({config.PREFIX}\w+)=(\S+)", image.replace("TEXT=true", "")):
        monkeypatch.setenv(name, value)
    with pytest.raises(config.SettingsError, match="ALLOW_PLAINTEXT"):
        config.load()
    monkeypatch.setenv("MILEPOST_ALLOW_PLAINTEXT", "true")
    assert config.load().embedded


def test_metrics_are_documented():
    """The guide for operators has every metric in its table, and names no other."""
    exported = {
        family.name + "_total" * (family.type == "counter")
        for family in (*telemetry.registry.collect(), *process_metrics(()))
    }
    text = OPERATING.read_text(encoding="utf-8")
    assert set(re.findall(r"`(milepost_\w+)`", text)) == exported
    assert set(re.findall(r"^\| `(milepost_\w+)` \|", text, re.MULTILINE)) == exported


def test_log_lines_are_documented():
    """The guide for operators lists every log line of the service."""
    text = OPERATING.read_text(encoding="utf-8")
    written = {
        event
        for path in (ROOT / "service/milepost").rglob("*.py")
        for event in re.findall(
            r"(?:\blog\.(?:info|warning|error|exception)\(\s*|\"event\": )\"([\w ]+)",
            path.read_text(encoding="utf-8"),
        )
    }
    assert {"serving", "operation changed", "call refused", "log lines lost"} <= written
    assert {event for event in written if f"`{event}" not in text} == set()


# --- links and file names ---


def anchors(path: Path) -> set[str]:
    """Return the anchors of the headings of a document, in the form of GitHub."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_have_targets(path):
    """Every link of a document leads to an existing file and heading."""
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_that_are_named_exist(path):
    """Every file that a document names in code exists, relative to the root or the service."""
    places = (ROOT, ROOT / "service/milepost", ROOT / "clients/python/milepost_client", path.parent)
    text = re.sub(
        r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    for name in re.findall(r"`([\w./-]+\.(?:py|proto|toml|md|mako|yaml))`", text):
        assert any((place / name).exists() for place in places), name


def test_records_are_numbered():
    """The records of decisions are numbered from 1, without a gap."""
    assert [path.name[:5] for path in RECORDS] == [
        f"{number:04}-" for number in range(1, len(RECORDS) + 1)
    ]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.name[:4])
def test_record_has_its_parts(path):
    """A record of a decision is short, and has its alternatives and open points."""
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_RECORD_LINES
    assert text.startswith(f"# {path.name[:4]}. ")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["Context", "Decision", "Alternatives", "Consequences", "Open"]


if __name__ == "__main__":
    write()
