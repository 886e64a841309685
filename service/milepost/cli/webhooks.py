"""``webhooks``: signing secrets and deliveries of callers, and master keys of operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from milepost.cli.connection import (
    AddressOption,
    InsecureOption,
    KeyOption,
    run_call,
)
from milepost.cli.errors import CommandError, ExitCode, settings_failures
from milepost.cli.operations import RequestIdOption
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
)
from milepost.cli.service import database_failures, settings_without_ports

if TYPE_CHECKING:
    from milepost_client import Delivery, DeliveryAttempt, Milepost, SigningSecrets


def secret(
    *,
    address: AddressOption,
    api_key: KeyOption,
    insecure: InsecureOption = False,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
) -> None:
    """Show the secret that signs your webhooks.

    Your first operation with a callback URL creates it, and so does `milepost webhooks rotate`.
    """
    found = run_call(lambda client: client.signing_secrets(), address, api_key, insecure=insecure)
    _show_secrets(found, output, quiet=quiet)


def rotate(
    *,
    request_id: RequestIdOption = None,
    address: AddressOption,
    api_key: KeyOption,
    insecure: InsecureOption = False,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
) -> None:
    """Create a secret that replaces the current one, if any; for 24 hours both sign."""
    found = run_call(
        lambda client: client.rotate_signing_secret(request_id=request_id),
        address,
        api_key,
        insecure=insecure,
    )
    _show_secrets(found, output, quiet=quiet)


def deliveries(
    *,
    operation: Annotated[
        str | None, typer.Option(metavar="ID", help="Only deliveries of this operation.")
    ] = None,
    limit: Annotated[
        int, typer.Option(metavar="NUMBER", min=1, help="Number of deliveries, newest first.")
    ] = 20,
    address: AddressOption,
    api_key: KeyOption,
    insecure: InsecureOption = False,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
) -> None:
    """List your webhooks and their outcomes, newest first."""

    async def call(client: Milepost) -> list[Delivery]:
        found: list[Delivery] = []
        async for delivery in client.deliveries(operation_id=operation):
            found.append(delivery)
            if len(found) == limit:
                break
        return found

    found = run_call(call, address, api_key, insecure=insecure)
    if quiet:
        for delivery in found:
            print_line(delivery.id)
    elif output is Output.JSON:
        print_json({"deliveries": [_document(delivery) for delivery in found]})
    elif not found:
        print_line("No deliveries found.")
    else:
        print_table(
            ("ID", "OPERATION", "EVENT", "STATUS", "ATTEMPTS", "CREATED", "LAST"),
            map(_row, found),
            wrapped="LAST",
            optional=("CREATED", "ATTEMPTS", "LAST", "EVENT"),
        )


def redeliver(
    id_: Annotated[str, typer.Argument(metavar="ID", help="Id of the delivery, msg_…")],
    *,
    request_id: RequestIdOption = None,
    address: AddressOption,
    api_key: KeyOption,
    insecure: InsecureOption = False,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
) -> None:
    """Send a settled webhook again, with the same id."""
    found = run_call(
        lambda client: client.redeliver(id_, request_id=request_id),
        address,
        api_key,
        insecure=insecure,
    )
    if quiet:
        print_line(found.id)
    elif output is Output.JSON:
        print_json(_document(found))
    else:
        print_line(f"{found.id} is {found.status} again")


def send_test(
    url: Annotated[str, typer.Argument(metavar="URL", help="URL that receives the webhook.")],
    *,
    address: AddressOption,
    api_key: KeyOption,
    insecure: InsecureOption = False,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
) -> None:
    """Send a test webhook to a URL and show the outcome; exit code 5 if it was not delivered.

    Needs a signing secret: see `milepost webhooks secret`.
    """
    found = run_call(
        lambda client: client.send_test_webhook(url), address, api_key, insecure=insecure
    )
    if quiet:
        return
    if output is Output.JSON:
        print_json(_attempt(found))
    elif found.error is None:
        print_line(_outcome(found))
    if found.error is not None:
        raise CommandError(
            f"the test webhook was not delivered: {found.error}",
            reason="WEBHOOK_NOT_DELIVERED",
            code="ABORTED",
            exit_code=ExitCode.ENDED_BADLY,
        )


def reencrypt(*, output: OutputOption = Output.TEXT, quiet: QuietOption = False) -> None:
    """Encrypt all secrets with the first master key, so that you can remove the others.

    Works on the database of the settings and needs no API key.
    """
    from milepost.main.master_keys import reencrypt_secrets

    settings = settings_without_ports()
    with settings_failures(), database_failures():
        changed = reencrypt_secrets(settings)
    if quiet:
        return
    if output is Output.JSON:
        print_json({"reencrypted": changed})
    else:
        print_line(f"encrypted {changed} under the current key")


def _show_secrets(found: SigningSecrets, output: Output, *, quiet: bool) -> None:
    if quiet:
        print_line(found.current.value)
        return
    both = {"current": found.current, "previous": found.previous}
    if output is Output.JSON:
        print_json(
            {
                name: {"value": each.value, "expire_time": time_json(each.expire_time)}
                for name, each in both.items()
                if each is not None
            }
        )
        return
    facts = [("current", found.current.value)]
    if found.previous is not None:
        facts.append(("previous", found.previous.value))
        facts.append(("signs until", time_text(found.previous.expire_time)))
    print_facts(facts)


def _row(delivery: Delivery) -> tuple[str, ...]:
    return (
        delivery.id,
        delivery.operation_id,
        delivery.event_type,
        str(delivery.status),
        str(len(delivery.attempts)),
        time_text(delivery.create_time),
        _outcome(delivery.attempts[-1]) if delivery.attempts else "",
    )


def _outcome(attempt: DeliveryAttempt) -> str:
    return attempt.error or f"answered {attempt.status_code}"


def _document(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "operation_id": delivery.operation_id,
        "revision": delivery.revision,
        "event_type": delivery.event_type,
        "callback_url": delivery.callback_url,
        "status": str(delivery.status),
        "create_time": time_json(delivery.create_time),
        "next_attempt_time": time_json(delivery.next_attempt_time),
        "settle_time": time_json(delivery.settle_time),
        "attempts": [_attempt(each) for each in delivery.attempts],
    }


def _attempt(attempt: DeliveryAttempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "start_time": time_json(attempt.start_time),
        "duration_s": attempt.duration.total_seconds(),
        "status_code": attempt.status_code,
        "error": attempt.error,
    }
