"""``keys``: API keys, read and written in the database directly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer

from milepost.cli.errors import CommandError, ExitCode, wrong_usage
from milepost.cli.output import (
    Output,
    OutputOption,
    QuietOption,
    print_facts,
    print_json,
    print_line,
    print_table,
    time_json,
    time_text,
    warn,
)
from milepost.cli.service import database_failures, database_url, settings_without_ports
from milepost.cli.values import lifetime, quoted
from milepost.domain.api_key import is_grant, key_id_of
from milepost.domain.limits import Limits
from milepost.domain.operation import Role
from milepost.domain.subject import subject_problem

_MAX_NAME_LENGTH: Final = Limits().name_length


def _subject(text: str) -> str:
    if problem := subject_problem(text):
        raise typer.BadParameter(problem)
    return text


def _grant(text: str) -> str:
    if len(text) > _MAX_NAME_LENGTH or not is_grant(text):
        raise typer.BadParameter(
            f"{quoted(text)} must be the name of a function, or a prefix of names with a final *,"
            f" such as 'video.*'; without spaces, at most {_MAX_NAME_LENGTH} characters"
        )
    return text


def create(
    *,
    subject: Annotated[
        str,
        typer.Option(parser=_subject, metavar="NAME", help="Subject that the key authenticates."),
    ],
    role: Annotated[
        list[Role], typer.Option(case_sensitive=False, help="Role of the key; can be repeated.")
    ],
    function: Annotated[
        list[str] | None,
        typer.Option(
            parser=_grant,
            metavar="PATTERN",
            help="For a WORKER: the functions that it may work on, for any owner,"
            " such as 'video.*'; can be repeated.",
        ),
    ] = None,
    expires_in: Annotated[
        timedelta | None,
        typer.Option(
            parser=lifetime,
            metavar="DURATION",
            help="Lifetime of the key, such as 90d; unlimited by default.",
        ),
    ] = None,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
) -> None:
    """Create an API key and show it once. With --quiet, only the key is printed."""
    settings = settings_without_ports()
    url = settings.database_url.get_secret_value()
    if problem := subject_problem(subject, settings.reserved_subjects):
        raise wrong_usage(f"--subject: {problem}")
    from milepost.main import api_keys

    roles, functions = sorted(set(role)), sorted(set(function or ()))
    with database_failures():
        key_id, secret, expire_time = api_keys.create_key(
            url, subject=subject, roles=roles, functions=functions, lifetime=expires_in
        )
    if quiet:
        print_line(secret)
        return
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
    print_line("\nThis key is shown only now: store it like a password.")
    print_line("Commands read the key from the variable MILEPOST_API_KEY.")
    if Role.WORKER in roles and not functions:
        warn("a WORKER without --function may work only on operations of its own subject")
    if functions and Role.WORKER not in roles:
        warn("--function has no effect without the role WORKER")


def list_(*, output: OutputOption = Output.TEXT, quiet: QuietOption = False) -> None:
    """List every API key, newest first, without the keys themselves."""
    url = database_url()
    from milepost.main import api_keys

    with database_failures():
        keys = api_keys.list_keys(url)
    if quiet:
        for key in keys:
            print_line(key["key_id"])
    elif output is Output.JSON:
        print_json({"keys": [_document(key) for key in keys]})
    elif not keys:
        print_line("There are no API keys yet: milepost keys create --subject NAME --role CALLER")
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
            wrapped="STATE",
            optional=("CREATED", "LAST USED", "EXPIRES", "FUNCTIONS"),
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


def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="As `keys list` shows it.")],
    *,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
) -> None:
    """Revoke an API key, within 5 seconds on every replica. A second call changes nothing."""
    url = database_url()
    from milepost.main import api_keys

    key_id = key_id_of(key_id) or key_id  # the key itself is accepted too
    with database_failures():
        if not api_keys.revoke_key(url, key_id):
            raise CommandError(
                "the API key does not exist: see milepost keys list",
                reason="API_KEY_NOT_FOUND",
                code="NOT_FOUND",
                exit_code=ExitCode.NOT_FOUND,
            )
    if quiet:
        return
    if output is Output.JSON:
        print_json({"key_id": key_id, "revoked": True})
    else:
        print_line(f"{key_id} is revoked")
