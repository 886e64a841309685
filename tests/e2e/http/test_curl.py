"""The example of docs/http.md, as a shell runs it."""

import json
import os
import re
import subprocess

from tests.programs import CURL
from tests.unit.documents import ROOT, blocks

DOCUMENT = ROOT / "docs" / "http.md"
COMMAND = re.compile(r"\$ (curl (?:.*\\\n)*.*)\n")


def test_example_creates_an_operation(any_service, alice):
    """The command of the document creates one operation, however often it is repeated."""
    CURL.require()
    (block,) = blocks(DOCUMENT, "console")
    found = COMMAND.search(block)
    assert found is not None
    command = found[1].replace("localhost:7451", any_service.http_address)
    first, second = (
        json.loads(
            subprocess.run(
                ["/bin/sh", "-c", command],
                env=os.environ | {"MILEPOST_API_KEY": alice.key},
                stdout=subprocess.PIPE,
                check=True,
            ).stdout
        )
        for _ in range(2)
    )
    assert first == second
    assert (first["function"], first["owner"]) == ("video.transcode", alice.subject)
