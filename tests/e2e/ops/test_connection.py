"""Address, key and output of the `ops` commands."""

import socket

from tests.e2e.commands import (
    DENIED,
    UNAVAILABLE,
    USAGE,
    create,
)


def test_quiet_commands_print_ids_only(caller):
    """With --quiet a command prints ids, or nothing."""
    id_ = caller("ops", "create", "x", "-q").out.strip()
    for words in (("get", id_), ("list",), ("cancel", id_)):
        assert caller("ops", *words, "--quiet").out == f"{id_}\n"
    assert caller("ops", "watch", id_, "--quiet").out == ""
    assert caller("ops", "delete", id_, "--quiet").out == ""
    assert caller("ops", "list", "--quiet").out == ""


def test_address_and_key_come_from_the_settings_file(access, caller, service, tmp_path):
    """Options win over the environment, and that over the file, which others should not read."""
    file = tmp_path / "client.env"
    file.write_text("".join(f"{name}={value}\n" for name, value in access.items()))
    file.chmod(0o600)
    unset = dict.fromkeys(access, "")
    id_ = create(caller)
    done = caller("ops", "list", "--quiet", MILEPOST_CONFIG_FILE=str(file), **unset)
    assert (done.out, done.err) == (f"{id_}\n", "")
    file.write_text(f"MILEPOST_API_KEY=mp_wrong\nMILEPOST_ADDRESS={service.address}\n")
    file.chmod(0o644)
    done = caller("ops", "list", MILEPOST_CONFIG_FILE=str(file), **unset)
    assert done.code == DENIED
    assert done.err.startswith(f"warning: {file} has MILEPOST_API_KEY and every user can read it")
    done = caller("ops", "list", "--quiet", MILEPOST_CONFIG_FILE=str(file))
    assert (done.out, done.err) == (f"{id_}\n", "")
    done = caller("ops", "list", "--api-key", "mp_other", MILEPOST_CONFIG_FILE=str(file))
    assert done.code == DENIED


def test_calls_need_a_key(caller, service):
    """A missing key is a usage error; a bad key and a missing role are refused by the service."""
    done = caller("ops", "list", "--output", "json", MILEPOST_API_KEY="")
    assert (done.code, done.error["reason"]) == (USAGE, "API_KEY_NEEDED")
    done = caller("ops", "list", "--output", "json", MILEPOST_API_KEY="mp_nonsense")
    assert (done.code, done.error["reason"]) == (DENIED, "UNAUTHENTICATED")
    assert "mp_nonsense" not in done.err
    assert "an API key may be mistyped" in done.error["message"]
    idle = service.api_key("wally", roles=("WORKER",), functions=())
    done = caller("ops", "list", "--output", "json", "--api-key", idle)
    assert (done.code, done.error["code"]) == (DENIED, "PERMISSION_DENIED")


def test_unreachable_service_fails_at_once(caller):
    """Without a service at the address, the command fails at once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # taken, but without a listener
        address = f"127.0.0.1:{probe.getsockname()[1]}"
        done = caller("ops", "list", "--address", address)
        assert (done.code, done.out) == (UNAVAILABLE, "")
        assert done.err.startswith(f"error: nothing listens on {address}")
        done = caller("ops", "list", "--address", address, "--output", "json")
        assert done.error["code"] == "UNAVAILABLE"


def test_port_of_http_is_recognized(caller, service):
    """An address that speaks HTTP is reported with the default port of gRPC."""
    done = caller("ops", "list", "--address", service.http_address)
    assert done.code == UNAVAILABLE
    assert done.err == (
        f"error: {service.http_address}: speaks HTTP, not gRPC: the gRPC port is 7450 by default\n"
    )
