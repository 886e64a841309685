"""The command line. Each command imports its dependencies when it runs, to start fast."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from milepost.cli import (
    creation,
    demo,
    history,
    keys,
    operations,
    outcomes,
    service,
    settings,
    webhooks,
)
from milepost.cli.errors import EXIT_CODES
from milepost.cli.program import Program

_JSON: Final = (
    "With `--output json` a command writes one JSON document to standard output (`ops watch`: one"
    ' line for each change), and its error as {"error": {"reason", "message", "code", …}}, the last'
    " line of standard error."
)
_PRECEDENCE: Final = (
    "Options win over variables MILEPOST_…, and these over the lines of the file that"
    " MILEPOST_CONFIG_FILE names: see `milepost check-config`."
)
_EPILOG: Final = f"""Exit codes: {EXIT_CODES}.

{_JSON}

{_PRECEDENCE}

Completion for bash, zsh and fish: `milepost --install-completion`.
"""


def _examples(*lines: str) -> str:
    """Return the end of a help text, with each example on a line of its own."""
    return "\n\n".join(("Examples:", *lines))


app = typer.Typer(
    cls=Program,
    help="Milepost, the service that tracks long-running operations.",
    epilog=_EPILOG,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _program(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=settings.print_version,
            is_eager=True,
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    """See the help of the app."""


app.command(
    epilog=_examples(
        "milepost serve",
        "MILEPOST_LISTEN=127.0.0.1:8000 milepost serve",
        "milepost serve --processes 4",
    )
)(service.serve)
app.command(epilog=_examples("milepost migrate", "milepost migrate --to 0001"))(service.migrate)
app.command(epilog=_examples("milepost cleanup --dry-run"))(service.cleanup)
app.command(
    epilog=_examples(
        "milepost demo",
        "milepost demo ~/Music --keep",
        "milepost demo --address localhost:7450",
    )
)(demo.demo)

keys_app = typer.Typer(
    help="Create, list and revoke API keys. Works on the database (MILEPOST_DATABASE_URL), whether"
    " or not the service is running."
)
app.add_typer(keys_app, name="keys")
keys_app.command(
    epilog=_examples(
        "milepost keys create --subject alice --role caller --expires-in 90d",
        "milepost keys create --subject encoder --role worker --function 'video.*'",
    )
)(keys.create)
keys_app.command("list", epilog=_examples("milepost keys list --output json"))(keys.list_)
keys_app.command(epilog=_examples("milepost keys revoke 5d4e164f54d51229"))(keys.revoke)

ops_app = typer.Typer(
    help="Create, read, list, watch, cancel and delete operations. Needs an API key."
)
app.add_typer(ops_app, name="ops")
ops_app.command(
    epilog=_examples(
        'milepost ops create video.transcode --metadata \'{"source": "in.mov"}\' --ttl 2h',
        "milepost ops create video.transcode --wait --timeout 15m",
        "milepost ops create report --schedule 2h --priority 7 --unique-key report-of-may",
        "milepost ops create import --max-attempts 5 --initial-backoff 10s --run-timeout 1h",
        "milepost ops create report --callback-url https://example.com/hook"
        " --callback-event operation.failed",
    )
)(creation.create)
ops_app.command(epilog=_examples("milepost ops get op_0123456789abcdef01234567"))(operations.get)
ops_app.command(
    "list",
    epilog=_examples(
        "milepost ops list --status pending --status processing",
        "milepost ops list --since 2h --function video.transcode --all --quiet",
        "milepost ops list --owner alice --since 2026-11-01 --until 2026-12-01",
    ),
)(operations.list_)
ops_app.command(epilog=_examples("milepost ops events op_0123456789abcdef01234567"))(history.events)
ops_app.command(epilog=_examples("milepost ops watch op_0123456789abcdef01234567 --timeout 15m"))(
    outcomes.watch
)
ops_app.command(epilog=_examples("milepost ops result op_0123456789abcdef01234567 --wait"))(
    outcomes.result
)
ops_app.command(
    epilog=_examples(
        "milepost ops cancel op_0123456789abcdef01234567 --reason 'not needed'",
        "milepost ops cancel op_0123456789abcdef01234567 --grace 30s",
    )
)(operations.cancel)
ops_app.command(epilog=_examples("milepost ops release op_0123456789abcdef01234567 --delay 10m"))(
    operations.release
)
ops_app.command(epilog=_examples("milepost ops delete op_0123456789abcdef01234567"))(
    operations.delete
)

webhooks_app = typer.Typer(
    help="Webhooks: signing secrets, deliveries, redelivery and tests. Needs an API key."
)
app.add_typer(webhooks_app, name="webhooks")
webhooks_app.command(epilog=_examples("milepost webhooks secret --quiet"))(webhooks.secret)
webhooks_app.command(epilog=_examples("milepost webhooks rotate"))(webhooks.rotate)
webhooks_app.command(
    epilog=_examples("milepost webhooks deliveries --operation op_0123456789abcdef01234567")
)(webhooks.deliveries)
webhooks_app.command(
    epilog=_examples("milepost webhooks redeliver msg_0123456789abcdef0123456789abcdef")
)(webhooks.redeliver)
webhooks_app.command("test", epilog=_examples("milepost webhooks test https://example.com/hook"))(
    webhooks.send_test
)
webhooks_app.command(epilog=_examples("milepost webhooks reencrypt"))(webhooks.reencrypt)

app.command("check-config", epilog=_examples("milepost check-config --output json"))(
    settings.check_config
)
app.command(epilog=_examples("milepost version --output json"))(settings.version)
