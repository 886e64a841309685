"""The command line."""

from __future__ import annotations

import asyncio
import json

import typer

from milepost import config, main, telemetry
from milepost.domain.operation import Role

app = typer.Typer(no_args_is_help=True)
keys = typer.Typer()
app.add_typer(keys, name="keys")


@app.command()
def serve() -> None:
    """Run the service until SIGTERM."""
    settings = config.load()
    telemetry.configure_logs(level=settings.log_level, as_json=settings.log_format != "text")
    import uvloop

    uvloop.run(main.serve(settings))


@app.command()
def migrate() -> None:
    """Bring the schema up to date."""
    print(main.migrate(config.load().database_url.get_secret_value()))


@keys.command("create")
def keys_create(subject: str = typer.Option(...), role: list[Role] = typer.Option([Role.CALLER]), function: list[str] = typer.Option([]), output: str = "text") -> None:
    """Create an API key."""
    key_id, key = main.create_key(config.load().database_url.get_secret_value(), subject=subject, roles=role, functions=function)
    print(json.dumps({"key_id": key_id, "secret": key}))
