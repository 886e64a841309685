"""The root command: runs the others and turns their errors into exit codes."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

from typer import TyperException
from typer.core import TyperGroup

from milepost.cli.errors import (
    CommandError,
    ExitCode,
    discard,
    refused,
    report,
    unexpected,
    wrong_usage,
)
from milepost.cli.values import quoted

_LONG: Final = re.compile(r"(\S{60})\S{140,}")


class Program(TyperGroup):
    """Group of all commands. An error prints a traceback only if the log level is debug."""

    def main(self, args: Sequence[str] | None = None, *_: object, **__: object) -> Any:
        """Run the command that the arguments name and exit with its code."""
        _open_standard_streams()
        # The log of gRPC's core has text of peers, with its line breaks. Set before gRPC starts.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        arguments = list(sys.argv[1:] if args is None else args)
        if not arguments:
            arguments = ["--help"]
        failure = self._run(arguments)
        if isinstance(failure, CommandError):
            report(failure, as_json=_wants_json(arguments))
            sys.exit(failure.exit_code)
        sys.exit(failure)

    def _run(self, arguments: list[str]) -> CommandError | int:
        """Return the failure of the command, or its exit code."""
        try:
            code = super().main(arguments, "milepost", standalone_mode=False) or ExitCode.OK
            sys.stdout.flush()  # errors of the output are errors of the command
        except BrokenPipeError:  # `head` has read enough; what the framework meets ends likewise
            discard(sys.stdout)
            return ExitCode.REFUSED
        except SystemExit as end:
            if not isinstance(end.code, str):
                raise
            return refused(end.code.removeprefix("error: "))
        except Exception as error:  # noqa: BLE001 - every error is reported as one line
            return _failure(error)
        if code == ExitCode.INTERRUPTED:
            return CommandError(
                "interrupted",
                reason="INTERRUPTED",
                code="CANCELLED",
                exit_code=ExitCode.INTERRUPTED,
            )
        return int(code)


def _failure(error: Exception) -> CommandError:
    """Return the failure for an error of any kind."""
    if isinstance(error, CommandError):
        return error
    if isinstance(error, TyperException):
        return wrong_usage(_sentence(error))
    if isinstance(error, UnicodeEncodeError):
        return wrong_usage(f"{quoted(error.object)} is not UTF-8 text")
    if isinstance(error, OSError):
        discard(sys.stdout)  # it may be what failed
    failure = unexpected(error)
    failure.__cause__ = error
    return failure


def _open_standard_streams() -> None:
    """Open the standard streams that the parent process has closed, on the null device.

    The next file or connection would get the number of a closed one, and log lines with it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that the terminal cannot encode must not fail the command.
        sys.stdout.reconfigure(errors="backslashreplace")


def _sentence(error: TyperException) -> str:
    """Return the problem with the arguments on one line, with a pointer to the help."""
    words = error.format_message().replace("Value error, ", "").split()
    text = " ".join(_LONG.sub(r"\1…", word) for word in words).rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{text}; see {context.command_path} --help" if context else text


def _wants_json(arguments: Sequence[str]) -> bool:
    """Return whether to report errors as JSON, even if the arguments are invalid."""
    together = {"--output=json", "-ojson", "-o=json"}
    apart = {("--output", "json"), ("-o", "json")}
    return not together.isdisjoint(arguments) or not apart.isdisjoint(pairwise(arguments))
