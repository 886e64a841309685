"""A real Prometheus that scrapes a service, where it is installed.

``MILEPOST_TEST_PROMTOOL=1`` makes its absence a failure: it is in the Debian package of promtool.
The header of a run says whether it is there.
"""

import json
import math
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from tests.machine import free_port
from tests.monitoring import ALERTS, VARIABLE
from tests.programs import Program
from tests.waiting import eventually

SCRAPE_INTERVAL: Final = "500ms"
START_S: Final = 30.0
_CALL_S: Final = 10.0


PROGRAM: Final = Program(
    command="prometheus",
    variable=VARIABLE,
    absence="Prometheus is not installed (apt install prometheus)",
)


class Prometheus:
    """The HTTP API of a running Prometheus."""

    def __init__(self, address: str) -> None:
        self._address = address

    def is_ready(self) -> bool:
        """Return True if it answers queries."""
        try:
            with urllib.request.urlopen(f"http://{self._address}/-/ready", timeout=_CALL_S):
                return True
        except OSError:
            return False

    def ask(self, path: str, **parameters: str | float) -> Any:
        """Return the data of a call; fail if there is an error or a warning."""
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(
                f"http://{self._address}/api/v1/{path}?{query}", timeout=_CALL_S
            ) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error
        assert (answer["status"], answer.get("warnings")) == ("success", None), answer
        return answer["data"]

    def values(self, query: str) -> list[float]:
        """Return the values of a query now, without those that are not a number."""
        found = self.ask("query", query=query)["result"]
        values = [float(each["value"][1]) for each in found]
        return [value for value in values if not math.isnan(value)]


@contextmanager
def scraping(address: str, folder: Path) -> Iterator[Prometheus]:
    """Scrape a service, with the alert rules; skip the test where Prometheus is missing."""
    program = PROGRAM.require()
    file, own = folder / "prometheus.yml", f"127.0.0.1:{free_port()}"
    interval = {"scrape_interval": SCRAPE_INTERVAL, "scrape_timeout": SCRAPE_INTERVAL}
    jobs = [{"job_name": "milepost", "static_configs": [{"targets": [address]}]}]
    rules = {"evaluation_interval": SCRAPE_INTERVAL, **interval}
    file.write_text(
        yaml.safe_dump({"global": rules, "rule_files": [str(ALERTS)], "scrape_configs": jobs})
    )
    command = [program, f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}"]
    command += [f"--web.listen-address={own}", "--enable-feature=exemplar-storage"]
    with (
        (folder / "prometheus.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        try:
            prometheus = Prometheus(own)
            eventually(prometheus.is_ready, within=START_S, what="Prometheus is ready")
            yield prometheus
        finally:
            process.terminate()
