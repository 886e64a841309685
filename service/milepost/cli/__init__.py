"""The command line. Each command imports its dependencies when it runs, to start fast."""

from __future__ import annotations

from typing import Final

import typer

from milepost.cli import demo, keys, operations, service, settings, webhooks
from milepost.cli.errors import EXIT_CODES
from milepost.cli.program import Program

_JSON: Final = (
    "With `--output json` a command writes one JSON document to standard output (`ops watch`: one"
    ' line for each change), and its error as {"error": {"reason", "message", "code", …}} to'
    " standard error."
)
_EPILOG: Final = f"""Exit codes: {EXIT_CODES}.

{_JSON}

Variables MILEPOST_… configure the service, see `milepost check-config`.
"""

app = typer.Typer(
    cls=Program,
    help="Milepost, the service that tracks long-running operations.",
    epilog=_EPILOG,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(service.serve)
app.command()(service.migrate)
app.command()(service.cleanup)
app.command()(demo.demo)
app.add_typer(keys.app, name="keys")
app.add_typer(operations.app, name="ops")
app.add_typer(webhooks.app, name="webhooks")
app.command("check-config")(settings.check_config)
app.command()(settings.version)
