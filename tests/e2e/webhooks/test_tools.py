"""Webhook commands, the receiver of the examples, and the rotation of master keys."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from milepost.storage.tables import signing_secrets
from milepost.webhooks.master_keys import new_key
from tests.e2e import fork_server
from tests.e2e.client import Client
from tests.e2e.service import Service
from tests.e2e.webhooks.owner import new_secret_of
from tests.machine import environment, free_ports
from tests.receivers import reset
from tests.waiting import eventually

EXAMPLE = Path(__file__).parents[3] / "clients/python/examples/receive_webhooks.py"
DEADLINE_SECONDS = 30


@pytest.fixture(scope="module")
def example_port():
    """The port of the receiver of the examples."""
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def settings(receiver, example_port):
    """Settings that allow the receivers."""
    return {
        "webhook_allow_http": "true",
        "webhook_allowed_networks": "127.0.0.1/32",
        "webhook_allowed_ports": f"{receiver.port},{example_port}",
        "webhook_schedule_seconds": "0",
    }


@pytest.fixture(scope="module")
def service(tmp_path_factory, settings):
    """A service on its embedded store, with its own master key."""
    folder = tmp_path_factory.mktemp("tools")
    with Service(f"sqlite:///{folder / 'milepost.db'}", folder, **settings) as service:
        yield service


@pytest.fixture
def alice(service):
    """A caller."""
    return service.client("alice")


@pytest.fixture
def run(service, alice):
    """Run a command as the caller."""

    def run(*arguments):
        access = environment(address=service.address, api_key=alice.key)
        return fork_server.run("webhooks", *arguments, environment=access, timeout=DEADLINE_SECONDS)

    return run


@pytest.fixture
def milepost(run):
    """Run a command as the caller and return the JSON document."""

    def document(*arguments, code=0):
        done = run(*arguments, "--output", "json")
        assert done.returncode == code, done.stderr
        return json.loads(done.stderr if code else done.stdout)

    return document


def test_command_line(milepost, alice, receiver):
    """The commands show and rotate the secret, list deliveries, send again, and send a test."""
    assert milepost("secret", code=3)["error"]["reason"] == "SIGNING_SECRET_NOT_FOUND"
    milepost("rotate")
    secret = milepost("secret")["current"]["value"]
    assert secret == alice.call("GetSigningSecret").current.value
    rotated = milepost("rotate", "--request-id", "r")
    assert rotated["previous"]["value"] == secret
    receiver.answer("/cli", 500)
    operation = alice.create_in("COMPLETED", callback_url=receiver.url("/cli"))

    def exhausted():
        (found,) = milepost("deliveries", "--operation", operation.id)["deliveries"]
        return found if found["status"] == "EXHAUSTED" else None

    delivery = eventually(exhausted, within=DEADLINE_SECONDS, what="exhausted")
    assert delivery["attempts"][0]["error"] == "answered 500"
    assert milepost("redeliver", delivery["id"])["id"] == delivery["id"]
    receiver.wait_for("/cli", 2)
    assert milepost("test", receiver.url("/test"))["status_code"] == 200


@pytest.mark.parametrize(
    ("answer", "problem"), [(500, "answered 500"), (302, "answered 302"), (reset, "closed early")]
)
def test_test_that_was_not_delivered(run, alice, receiver, answer, problem):
    """A test webhook that is not delivered is exit code 5, with the reason in both outputs."""
    new_secret_of(alice)
    path = f"/undelivered-{problem.replace(' ', '-')}"
    receiver.answer(path, answer, answer)
    in_json = run("test", receiver.url(path), "--output", "json")
    assert in_json.returncode == 5
    assert problem in json.loads(in_json.stdout)["error"]
    error = json.loads(in_json.stderr)["error"]
    assert (error["reason"], error["exit_code"]) == ("WEBHOOK_NOT_DELIVERED", 5)
    for_people = run("test", receiver.url(path))
    assert (for_people.returncode, for_people.stdout) == (5, "")
    assert error["message"] in for_people.stderr
    assert error["message"].startswith("the test webhook was not delivered: ")


def test_examples_need_the_client_only():
    """The examples import the standard library and the client, nothing undeclared."""
    for example in EXAMPLE.parent.glob("*.py"):
        imported = {
            name.partition(".")[0]
            for node in ast.walk(ast.parse(example.read_text()))
            for name in (
                [each.name for each in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert imported - sys.stdlib_module_names <= {"milepost_client"}, example


def test_example_receiver(alice, example_port):
    """The receiver of the examples takes a webhook that the service signed, and no other."""
    secret = new_secret_of(alice)
    with subprocess.Popen(
        [sys.executable, str(EXAMPLE), str(example_port)],
        env=environment() | {"WEBHOOK_SECRET": secret},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            url = f"http://127.0.0.1:{example_port}/hook"

            def taken():
                attempt = alice.call("SendTestWebhook", callback_url=url).attempt
                return attempt if attempt.HasField("status_code") else None

            attempt = eventually(taken, within=DEADLINE_SECONDS, what="the receiver answers")
            assert attempt.status_code == 204
            assert process.stdout is not None
            assert process.stdout.readline().split()[1] == "webhook.test"
            alice.call("RotateSigningSecret")
            alice.call("RotateSigningSecret")  # both secrets are new
            assert taken().status_code == 401
        finally:
            process.terminate()


def test_master_key_can_be_replaced(tmp_path, settings):
    """After reencrypt the first master key is enough, and the secret is the same."""
    old, new = new_key(), new_key()
    url = f"sqlite:///{tmp_path / 'milepost.db'}"
    with Service(url, tmp_path, webhook_keys=old, **settings) as service:
        alice = service.client("alice")
        secret = new_secret_of(alice)
    keys = environment(database_url=url, webhook_keys=f"{new},{old}")
    done = fork_server.run("webhooks", "reencrypt", environment=keys, timeout=DEADLINE_SECONDS)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "encrypted 1 under the current key\n"
    with service.engine.connect() as connection:
        ids = connection.execute(sa.select(signing_secrets.c.key_id)).scalars().all()
    assert ids == [new.partition(":")[0]]
    with Service(url, tmp_path, webhook_keys=new, **settings) as service:
        again = Client(service.channel, alice.subject, alice.roles, alice.key)
        assert again.call("GetSigningSecret").current.value == secret


def test_broken_key_file_is_a_problem_of_the_settings(tmp_path):
    """An unusable file of master keys stops the start with one line, without the key."""
    file = tmp_path / "keys"
    file.write_text("k1:hush")
    settings = environment(
        database_url=f"sqlite:///{tmp_path / 'milepost.db'}",
        webhook_keys_file=str(file),
        listen="127.0.0.1:0",
        http_listen="",
    )
    done = fork_server.run("serve", environment=settings, timeout=DEADLINE_SECONDS)
    assert done.returncode == 2
    assert "MILEPOST_WEBHOOK_KEYS_FILE" in done.stderr
    assert "hush" not in done.stderr
    assert "Traceback" not in done.stderr
