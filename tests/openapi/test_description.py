"""The service answers as its description says: to generated requests, and to a stock client."""

import os
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.service import Service

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
TOOLS: Final = ROOT / ".cache/openapi/venv/bin"
"""The environment that `make test-http` makes."""
DESCRIPTION: Final = ROOT / "service/milepost/web/description/openapi.json"
UNTRIED: Final = ":watch|:revoke|webhooks:test"
"""A watch does not end by itself, the key in use would be revoked, and a test needs a host."""
CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "positive_data_acceptance",
    "allow_header_conformance",
)
ROLES: Final = ("CALLER", "WORKER", "ADMIN")


def run(*command: str | Path, **environment: str) -> str:
    """Run a tool, and return its output."""
    done = subprocess.run(
        command,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:]
    return done.stdout


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_generated_requests_get_the_described_answers(described: Service, mode: str) -> None:
    """No valid request is refused, and no request at all has a 5xx or undescribed answer."""
    key = described.api_key("schemathesis", ROLES, ("*",))
    output = run(
        TOOLS / "schemathesis",
        f"--config-file={HERE / 'schemathesis.toml'}",
        "run",
        DESCRIPTION,
        f"--url={described.url}",
        f"--header=Authorization: Bearer {key}",
        f"--mode={mode}",
        f"--checks={','.join(CHECKS)}",
        f"--exclude-path-regex={UNTRIED}",
        "--phases=fuzzing",
        "--max-examples=10",
        "--request-timeout=10",
        "--generation-deterministic",
        "--suppress-health-check=all",
        "--no-color",
        PYTHONPATH=str(HERE),
        SCHEMATHESIS_HOOKS="hooks",
    )
    assert "Authentication failed" not in output
    assert described.log_lines(event="internal error") == []


@pytest.mark.timeout(600)
def test_generated_client_creates_and_reads(described: Service, tmp_path: Path) -> None:
    """A client that a stock generator makes creates an operation and reads it."""
    generator = TOOLS / "openapi-python-client"
    path = f"--output-path={tmp_path / 'stock_client'}"
    output = run(generator, "generate", f"--path={DESCRIPTION}", path, "--meta=none")
    assert "WARNING parsing" not in output
    key = described.api_key("alice")
    read = run(
        TOOLS / "python", HERE / "use_stock_client.py", described.url, key, PYTHONPATH=str(tmp_path)
    )
    assert read.split() == ["OPERATION_STATUS_PENDING", "video.transcode", "{'n':", "1}", "same"]
