"""``keys``: who may call the service. Works on its database, not on the service."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer

from milepost.cli.errors import CommandError, ExitCode
from milepost.cli.output import (
    Output,
    OutputOption,
    print_facts,
    print_json,
    print_line,
    print_table,
    time_json,
    time_text,
    warn,
)
from milepost.cli.service import database_failures, database_url
from milepost.domain.api_key import is_grant, key_id_of
from milepost.domain.limits import Limits
from milepost.domain.operation import Role

_LONGEST: Final = Limits().name_length
_SPAN: Final = re.compile(r"(?P<number>[1-9]\d{0,4})(?P<unit>[smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

app = typer.Typer(
    help="API keys: create, list and revoke them. Needs the database (MILEPOST_DATABASE_URL).",
    no_args_is_help=False,
)


def _subject(text: str) -> str:
    problem = None
    if not text.strip():
        problem = "must not be blank"
    elif len(text) > _LONGEST:
        problem = f"must be at most {_LONGEST} characters, found {len(text)}"
    elif not text.isprintable():
        problem = "must not contain control characters"
    elif text != text.strip():
        problem = "must not begin or end with a space"
    if problem:
        raise typer.BadParameter(problem)
    return text


def _grant(text: str) -> str:
    if len(text) > _LONGEST or not is_grant(text):
        raise typer.BadParameter(
            f"{text!r} must be the name of a function, or the beginning of names and a final *,"
            f" such as 'video.*'; without spaces, at most {_LONGEST} characters"
        )
    return text


def _span(text: str) -> timedelta:
    found = _SPAN.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"{text!r} must be a number and one of s, m, h, d, such as 90d")
    return timedelta(**{_UNITS[found["unit"]]: int(found["number"])})


@app.command()
def create(
    *,
    subject: Annotated[
        str, typer.Option(parser=_subject, metavar="NAME", help="Whom the key speaks for.")
    ],
    role: Annotated[
        list[Role], typer.Option(case_sensitive=False, help="What it may do; can be repeated.")
    ],
    function: Annotated[
        list[str] | None,
        typer.Option(
            parser=_grant,
            metavar="PATTERN",
            help="For a WORKER: the functions whose operations it may work on, for any owner,"
            " such as 'video.*'; can be repeated.",
        ),
    ] = None,
    expires_in: Annotated[
        timedelta | None,
        typer.Option(
            parser=_span, metavar="TIME", help="How long it is valid, such as 90d; else for ever."
        ),
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Create an API key, and show it this once."""
    url = database_url()
    from milepost import main

    roles, functions = sorted(set(role)), sorted(set(function or ()))
    with database_failures():
        key_id, secret, expire_time = main.create_key(
            url, subject=subject, roles=roles, functions=functions, lifetime=expires_in
        )
    if output is Output.JSON:
        print_json(
            {
                "key_id": key_id,
                "secret": secret,
                "subject": subject,
                "roles": roles,
                "functions": functions,
                "expire_time": time_json(expire_time),
            }
        )
        return
    print_facts(
        [
            ("key id", key_id),
            ("subject", subject),
            ("roles", " ".join(roles)),
            ("functions", " ".join(functions)),
            ("expires", time_text(expire_time) if expire_time else "never"),
            ("key", secret),
        ]
    )
    print_line("\nThis key is shown only now: keep it where secrets are kept.")
    print_line("Commands read it from the variable MILEPOST_API_KEY.")
    if Role.WORKER in roles and not functions:
        warn("a WORKER without --function can work only on operations of its own subject")
    if functions and Role.WORKER not in roles:
        warn("--function means nothing without the role WORKER")


@app.command("list")
def list_(*, output: OutputOption = Output.TEXT) -> None:
    """List every API key, newest first, without the keys themselves."""
    url = database_url()
    from milepost import main

    with database_failures():
        keys = main.list_keys(url)
    if output is Output.JSON:
        print_json({"keys": [_document(key) for key in keys]})
    elif not keys:
        print_line("There is no API key yet: milepost keys create --subject NAME --role CALLER")
    else:
        print_table(
            ("KEY ID", "SUBJECT", "ROLES", "FUNCTIONS", "CREATED", "EXPIRES", "LAST USED", "STATE"),
            [
                (
                    key["key_id"],
                    key["subject"],
                    key["roles"],
                    key["functions"] or "-",
                    time_text(key["create_time"]),
                    time_text(key["expire_time"]) if key["expire_time"] else "never",
                    time_text(key["last_used_time"]) if key["last_used_time"] else "-",
                    _state(key),
                )
                for key in keys
            ],
        )


def _state(key: dict[str, Any]) -> str:
    if key["revoke_time"]:
        return f"revoked {time_text(key['revoke_time'])}"
    if key["expire_time"] and key["expire_time"] <= datetime.now(UTC):
        return f"expired {time_text(key['expire_time'])}"
    return "valid"


def _document(key: dict[str, Any]) -> dict[str, Any]:
    times = {name: time_json(key[name]) for name in key if name.endswith("_time")}
    lists = {name: key[name].split() for name in ("roles", "functions")}
    return {**key, **lists, **times}


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="As `keys list` shows it.")],
    *,
    output: OutputOption = Output.TEXT,
) -> None:
    """Make an API key worthless, within 5 seconds on every replica. Doing it twice is fine."""
    url = database_url()
    from milepost import main

    key_id = key_id_of(key_id) or key_id  # somebody may have only the key itself
    with database_failures():
        if not main.revoke_key(url, key_id):
            raise CommandError(
                "there is no such API key: milepost keys list",
                reason="API_KEY_NOT_FOUND",
                code="NOT_FOUND",
                exit_code=ExitCode.NOT_FOUND,
            )
    if output is Output.JSON:
        print_json({"key_id": key_id, "revoked": True})
    else:
        print_line(f"{key_id} is revoked")
