"""A Jaeger of the tests: its process and its queries.

with Jaeger(folder) as jaeger:
    service = Service(url, folder, otlp_endpoint=jaeger.grpc_url)
    jaeger.spans_of(operation_id)
"""

import http
import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from tests.canaries import CANARIES
from tests.machine import free_ports
from tests.programs import Program
from tests.waiting import eventually

ROOT: Final = Path(__file__).resolve().parents[2]
PROGRAM: Final = Program(
    command=ROOT / ".cache" / "jaeger" / "jaeger",
    variable="MILEPOST_TEST_JAEGER",
    absence="Jaeger is not built (make test, with Go)",
)
START_S: Final = 30.0
ARRIVES_S: Final = 20.0
QUERY_S: Final = 10.0
_CONFIG: Final = """
service:
  extensions: [jaeger_storage, jaeger_query, healthcheckv2]
  pipelines: {traces: {receivers: [otlp], exporters: [jaeger_storage_exporter]}}
  telemetry: {metrics: {level: none}, logs: {level: warn}}
extensions:
  jaeger_query:
    storage: {traces: memory}
    http: {endpoint: "127.0.0.1:{query}"}
    grpc: {endpoint: "127.0.0.1:{query_grpc}"}
  jaeger_storage: {backends: {memory: {memory: {max_traces: 100000}}}}
  healthcheckv2: {use_v2: true, http: {endpoint: "127.0.0.1:{health}"}}
receivers:
  otlp:
    protocols: {grpc: {endpoint: "127.0.0.1:{grpc}"}, http: {endpoint: "127.0.0.1:{http}"}}
exporters: {jaeger_storage_exporter: {trace_storage: memory}}
"""


@dataclass(frozen=True, kw_only=True)
class Found:
    """One span, as Jaeger answers it."""

    trace_id: str
    id: str
    name: str
    parent: str | None
    links: frozenset[tuple[str, str]]
    """Trace and span of each."""
    tags: Mapping[str, Any]
    start_us: int
    duration_us: int
    resource: Mapping[str, Any]
    """The attributes of the process that sent it."""

    @property
    def is_error(self) -> bool:
        """True if Jaeger shows it in red."""
        return bool(self.tags.get("error"))


class Jaeger:
    """A Jaeger that keeps its spans in memory, on free ports of the loopback."""

    def __init__(self, folder: Path) -> None:
        """Describe it; its log and its configuration are in the folder."""
        names = ("query", "query_grpc", "health", "grpc", "http")
        self._ports = dict(zip(names, free_ports(len(names)), strict=True))
        self._config = folder / "jaeger.yaml"
        self._log = folder / "jaeger.log"
        self.grpc_url = f"http://127.0.0.1:{self._ports['grpc']}"
        self.http_url = f"http://127.0.0.1:{self._ports['http']}"

    def __enter__(self) -> Self:
        """Start, and wait until it answers; skip the test where it is not built."""
        program = PROGRAM.require()
        text = _CONFIG
        for name, port in self._ports.items():
            text = text.replace(f":{{{name}}}", f":{port}")
        self._config.write_text(text, encoding="utf-8")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [program, "--config", self._config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        eventually(self._is_up, within=START_S, what="Jaeger answers")
        return self

    def __exit__(self, *_error: object) -> None:
        """End it: it has nothing to save."""
        self._process.kill()
        self._process.wait()

    def _is_up(self) -> bool:
        assert self._process.poll() is None, self._log.read_text(encoding="utf-8")
        try:
            self._get(f"http://127.0.0.1:{self._ports['health']}/status")
        except OSError:
            return False
        return True

    def search(self, *, service: str = "milepost", **filters: str) -> list[Found]:
        """Return the spans of the traces that a search finds, as ``/api/traces`` answers.

        Args:
            service: the name of the service.
            filters: further parameters, such as `tags`, `operation` or `minDuration`.
        """
        query = {"service": service, "lookback": "1h", "limit": "1000", **filters}
        return list(self._spans(f"/api/traces?{urllib.parse.urlencode(query)}"))

    def find(self, **tags: str) -> list[Found]:
        """Return the spans that have these attributes, whose dots are written as ``__``."""
        wanted = {name.replace("__", "."): value for name, value in tags.items()}
        spans = self.search(tags=json.dumps(wanted))
        return [span for span in spans if wanted.items() <= span.tags.items()]

    def spans_of(self, operation_id: str) -> list[Found]:
        """Return the spans that a search for an operation finds, in the order of their starts."""
        found = self.find(milepost__operation__id=operation_id)
        return sorted(found, key=lambda span: span.start_us)

    def life(self, operation_id: str) -> list[Found]:
        """Return the changes among them."""
        return [span for span in self.spans_of(operation_id) if span.name.startswith("operation ")]

    def trace(self, trace_id: str) -> list[Found]:
        """Return the spans of a trace."""
        try:
            return list(self._spans(f"/api/traces/{trace_id}"))
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.NOT_FOUND:
                return []
            raise

    def wait_for(self, operation_id: str, *names: str) -> list[Found]:
        """Wait until a search for an operation finds its changes with these names; return all."""
        eventually(
            lambda: {*names} <= {span.name for span in self.spans_of(operation_id)},
            within=ARRIVES_S,
            what=f"{names} of {operation_id}",
        )
        return self.spans_of(operation_id)

    def wait_for_trace(self, trace_id: str, name: str) -> list[Found]:
        """Wait until a trace has spans with a name, and return these."""
        found: list[Found] = eventually(
            lambda: [span for span in self.trace(trace_id) if span.name == name],
            within=ARRIVES_S,
            what=f"{name} in {trace_id}",
        )
        return found

    def _spans(self, path: str) -> Iterator[Found]:
        answer = json.loads(self._get(f"http://127.0.0.1:{self._ports['query']}{path}"))
        CANARIES.saw("an answer of Jaeger", json.dumps(answer).encode())
        for trace in answer["data"]:
            for span in trace["spans"]:
                yield _found(span, trace["processes"])

    @staticmethod
    def _get(url: str) -> bytes:
        with urllib.request.urlopen(url, timeout=QUERY_S) as response:  # noqa: S310 - the loopback
            content: bytes = response.read()
            return content


def _found(span: Mapping[str, Any], processes: Mapping[str, Any]) -> Found:
    references = span["references"]
    parents = [ref for ref in references if ref["refType"] == "CHILD_OF"]
    links = [ref for ref in references if ref["refType"] == "FOLLOWS_FROM"]
    process = processes[span["processID"]]
    return Found(
        trace_id=span["traceID"],
        id=span["spanID"],
        name=span["operationName"],
        parent=parents[0]["spanID"] if parents else None,
        links=frozenset((ref["traceID"], ref["spanID"]) for ref in links),
        tags=_tags(span["tags"]),
        start_us=span["startTime"],
        duration_us=span["duration"],
        resource={"service.name": process["serviceName"], **_tags(process["tags"])},
    )


def _tags(tags: list[dict[str, Any]]) -> dict[str, Any]:
    return {tag["key"]: tag["value"] for tag in tags}
