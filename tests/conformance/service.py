"""A service for the tests of a client in any language, driven over standard input and output.

    python -m tests.conformance.service [--limited] [--tls] [--webhooks] [--set NAME=VALUE]…

It writes one JSON object a line: first its addresses, then the result of each command that it
reads. README.md lists the commands. It stops the service and ends when its input ends.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from milepost.webhooks.master_keys import new_key
from tests.certificates import SERVER, Authority
from tests.e2e.service import Service

DATABASE: Final = "milepost.db"


def main() -> None:
    """Run a service until the input ends."""
    parser = argparse.ArgumentParser(description="Run a service for the tests of a client.")
    parser.add_argument("--limited", action="store_true", help="use the default limits")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="settings")
    parser.add_argument("--tls", action="store_true", help="encrypt, for 127.0.0.1 and localhost")
    parser.add_argument("--webhooks", action="store_true", help="send webhooks")
    options = parser.parse_args()
    settings = dict(setting.split("=", 1) for setting in options.settings)
    if options.webhooks:
        settings["webhook_keys"] = new_key()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        url = f"sqlite:///{folder / DATABASE}"
        started = {}
        if options.tls:
            authority = Authority(folder)
            pair = authority.certify(*SERVER)
            settings |= {"tls_cert_file": str(pair.certificate), "tls_key_file": str(pair.key)}
            started["ca_file"] = str(authority.file)
        with Service(url, folder, limited=options.limited, **settings) as service:
            started |= {"address": service.address, "http_address": service.http_address}
            write(started)
            for line in sys.stdin:
                write(perform(service, json.loads(line)))


def perform(service: Service, command: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the result of one command, or the text of its failure."""
    try:
        return COMMANDS[command["do"]](service, command)
    except Exception as problem:  # noqa: BLE001 - the test that sent the command shall see it
        return {"error": repr(problem)}


def write(result: Mapping[str, Any]) -> None:
    """Write one result, at once."""
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


def _key(service: Service, command: Mapping[str, Any]) -> Mapping[str, Any]:
    """Create an API key."""
    roles = command.get("roles", ["CALLER"])
    return {"key": service.api_key(command["subject"], roles, command.get("functions", []))}


def _kill(service: Service, _command: Mapping[str, Any]) -> Mapping[str, Any]:
    """Kill the process with SIGKILL."""
    service.kill()
    return {}


def _stop(service: Service, _command: Mapping[str, Any]) -> Mapping[str, Any]:
    """Stop the process in order, with SIGTERM."""
    service.stop()
    return {}


def _start(service: Service, _command: Mapping[str, Any]) -> Mapping[str, Any]:
    """Start the process again, on the same data and addresses."""
    service.start()
    return {}


def _log(service: Service, _command: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the log so far."""
    return {"log": service.log()}


COMMANDS: Final[Mapping[str, Callable[[Service, Mapping[str, Any]], Mapping[str, Any]]]] = {
    "key": _key,
    "kill": _kill,
    "stop": _stop,
    "start": _start,
    "log": _log,
}


if __name__ == "__main__":
    main()
