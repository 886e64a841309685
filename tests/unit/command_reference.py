"""The reference of the command line, from the commands themselves."""

from collections.abc import Iterator
from typing import Any

import typer

from milepost.cli import app


def command_reference() -> str:
    """Return a section for each command: its usage, its purpose, its options and its examples."""
    root = typer.main.get_command(app)
    return "\n\n".join(
        _section(" ".join(names), each) for names, each in _commands(root, "milepost")
    )


def _commands(group: Any, *names: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, *names, name)
        else:
            yield (*names, name), command


def _section(name: str, command: Any) -> str:
    context = typer.Context(command, info_name=name)
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    rows = [(each.metavar, each.help) for each in arguments]
    rows += [
        record
        for each in command.params
        if each not in arguments and each.name != "help"
        if (record := each.get_help_record(context))  # hidden options have none
    ]
    examples = command.epilog.removeprefix("Examples:").strip().replace("\n\n", "\n")
    return "\n\n".join(
        (
            f"## {name}",
            " ".join([f"`{name}", *(each.metavar for each in arguments), "[OPTIONS]`"]),
            command.help.strip(),
            "\n".join(["| argument or option | meaning |", "| --- | --- |", *map(_row, rows)]),
            f"```sh\n{examples}\n```",
        )
    )


def _row(record: tuple[str, str]) -> str:
    names, meaning = (text.replace("|", "\\|") for text in record)
    return f"| `{names.replace(' <bool>', '')}` | {' '.join(meaning.split())} |"
