"""Real proxies in front of replicas, with the files of ``deploy``.

Only the addresses and the paths in a file are replaced. ``MILEPOST_TEST_PROXIES`` names the proxies
that must be there, such as ``nginx,haproxy``: then their tests fail without them. The header of a
run says which ones it uses.
"""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc
import pytest

from milepost_client import Milepost, read_tls
from tests.canaries import CANARIES
from tests.certificates import SERVER, Authority
from tests.machine import free_port
from tests.programs import listens
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.e2e.service import Service

ROOT: Final = Path(__file__).resolve().parents[1]
VARIABLE: Final = "MILEPOST_TEST_PROXIES"
START_S: Final = 10.0
CHECK_S: Final = 30.0


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A program, its file, and the words that run it."""

    file: str
    """Its configuration, below the root of the repository."""
    run: tuple[str, ...]
    """Its arguments, with the values of `Configuration`."""
    check: tuple[str, ...]
    """Its arguments to check the configuration."""
    places: Mapping[str, str]
    """The places that are replaced in the file, with the values of `Configuration`."""
    address: str = "{host}:{port}"
    """The form of the addresses of replicas in the file."""
    warning: str = ""
    """What the program warns of with a valid configuration, because it is wanted so."""


_NGINX_TEMPORARY: Final = "".join(
    f"    {name}_temp_path {{folder}}/{name};\n"
    for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
)
_NGINX: Final = ("-p", "{folder}", "-e", "{folder}/log", "-c", "{file}", "-g")
_NGINX_PROCESS: Final = "pid {folder}/nginx.pid; error_log {folder}/log;"
KINDS: Final[Mapping[str, Kind]] = {
    "nginx": Kind(
        file="deploy/nginx.conf",
        run=(*_NGINX, f"daemon off; master_process off; {_NGINX_PROCESS}"),
        check=(*_NGINX, _NGINX_PROCESS, "-t"),
        places={
            "\nhttp {\n": "\nhttp {\n" + _NGINX_TEMPORARY,
            "/var/log/nginx/access.log": "{folder}/access.log",
            "/etc/nginx/tls/tls.crt": "{certificate}",
            "/etc/nginx/tls/tls.key": "{key}",
            "listen 443 ": "listen {address} ",
        },
    ),
    "haproxy": Kind(
        file="deploy/haproxy.cfg",
        run=("-db", "-f", "{file}"),
        check=("-c", "-f", "{file}"),
        places={
            "/etc/haproxy/tls.pem": "{both}",
            "bind :443 ": "bind {address} ",
        },
    ),
    "envoy": Kind(
        file="deploy/envoy.yaml",
        run=("-c", "{file}", "--concurrency", "1", "--disable-hot-restart"),
        check=("--mode", "validate", "-c", "{file}"),
        places={
            "/etc/envoy/tls.crt": "{certificate}",
            "/etc/envoy/tls.key": "{key}",
            "address: 0.0.0.0, port_value: 443": "address: 127.0.0.1, port_value: {port}",
        },
        address="address: {host}, port_value: {port}",
    ),
    "caddy": Kind(
        file="deploy/Caddyfile",
        run=("run", "--adapter", "caddyfile", "--config", "{file}"),
        check=("validate", "--adapter", "caddyfile", "--config", "{file}"),
        places={
            "/etc/caddy/tls.crt": "{certificate}",
            "/etc/caddy/tls.key": "{key}",
            "\n:443 {\n": "\n:{port} {\n\tbind 127.0.0.1\n",
        },
        warning="automatic HTTP->HTTPS redirects are disabled",
    ),
}


@dataclass(frozen=True)
class Proxy:
    """A running proxy. Without an authority it does not encrypt."""

    name: str
    address: str
    authority: Path | None = None
    logs: tuple[Path, ...] = ()

    def log(self) -> str:
        """Return what it has written so far."""
        return "".join(path.read_text(encoding="utf-8") for path in self.logs if path.exists())

    @property
    def http_address(self) -> str:
        """The address of the API over HTTP."""
        return self.address

    @property
    def tls(self) -> grpc.ChannelCredentials | None:
        """The credentials of a channel."""
        return None if self.authority is None else read_tls(ca_file=self.authority)

    @property
    def context(self) -> ssl.SSLContext:
        """The credentials of an HTTP client."""
        return ssl.create_default_context(cafile=self.authority)

    def channel(self, *options: tuple[str, Any]) -> grpc.aio.Channel:
        """Return a new channel, with a connection of its own."""
        own = ("grpc.use_local_subchannel_pool", 1)
        if self.tls is None:
            return grpc.aio.insecure_channel(self.address, options=(own, *options))
        return grpc.aio.secure_channel(self.address, self.tls, options=(own, *options))

    def milepost(self, key: str, *, deadline: float = 10.0) -> Milepost:
        """Return a client with an API key."""
        return Milepost(self.address, api_key=key, tls=self.tls, deadline=deadline)


class Configuration:
    """The files and the address of one proxy in front of two replicas."""

    def __init__(self, name: str, replicas: Sequence[Service], folder: Path) -> None:
        """Write the configuration."""
        self.name, self._kind = name, KINDS[name]
        self._folder = folder / f"{name}-{free_port()}"
        self._folder.mkdir()
        authority = Authority(self._folder)
        pair = authority.certify(*SERVER)
        both = self._folder / "both.pem"
        both.write_bytes(pair.certificate.read_bytes() + pair.key.read_bytes())
        self._output = self._folder / "output"
        logs = self._output, self._folder / "access.log"
        self.proxy = Proxy(name, f"127.0.0.1:{free_port()}", authority.file, logs)
        for log in logs:
            CANARIES.watch(log)
        self._values = {
            "folder": str(self._folder),
            "file": str(self._folder / Path(self._kind.file).name),
            "address": self.proxy.address,
            "port": self.proxy.address.rpartition(":")[2],
            "certificate": str(pair.certificate),
            "key": str(pair.key),
            "both": str(both),
        }
        text = self._replaced((ROOT / self._kind.file).read_text(encoding="utf-8"), replicas)
        Path(self._values["file"]).write_text(text, encoding="utf-8")

    def _replaced(self, text: str, replicas: Sequence[Service]) -> str:
        """Return the text of the file with the addresses and the paths of this test."""
        places = {place: self._filled(value) for place, value in self._kind.places.items()}
        for number, replica in enumerate(replicas, 1):
            for port, address in ((7450, replica.address), (7451, replica.http_address)):
                host, _, own_port = address.rpartition(":")
                place = self._kind.address.format(host=f"milepost-{number}", port=port)
                places[place] = self._kind.address.format(host=host, port=own_port)
        for place, value in places.items():
            assert place in text, f"{place!r} is not in {self._kind.file}"
            text = text.replace(place, value)
        return text

    def command(self, words: Sequence[str]) -> list[str]:
        """Return a command of the program."""
        program = shutil.which(self.name, path=_search_path())
        assert program is not None, f"{self.name} is not installed"
        return [program, *map(self._filled, words)]

    def check(self) -> str:
        """Return what the program says about the configuration, which has to be valid."""
        done = subprocess.run(
            self.command(self._kind.check),
            check=False,
            capture_output=True,
            text=True,
            timeout=CHECK_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    @contextmanager
    def running(self) -> Iterator[Proxy]:
        """Run the proxy."""
        with self._output.open("wb") as output:
            process = subprocess.Popen(
                self.command(self._kind.run),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            eventually(lambda: self._listens(process), within=START_S, what=f"{self.name} listens")
            yield self.proxy
        finally:
            process.kill()
            process.wait()

    def _listens(self, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, self.proxy.log()
        return listens(self.proxy.address)

    def _filled(self, text: str) -> str:
        for name, value in self._values.items():
            text = text.replace(f"{{{name}}}", value)
        return text


def is_installed(name: str) -> bool:
    """Return True if the tests use this proxy, because it is there or demanded."""
    demanded = os.environ.get(VARIABLE, "").split(",")
    return name in demanded or shutil.which(name, path=_search_path()) is not None


def require(name: str) -> None:
    """Skip the test where the proxy is missing."""
    if not is_installed(name):
        pytest.skip(f"{name} is not installed: {KINDS[name].file} is UNTESTED")


def require_any(proxies: Mapping[str, Proxy]) -> None:
    """Skip the test where all proxies are missing."""
    if not proxies:
        pytest.skip(f"no proxy is installed: {', '.join(KINDS)}: this is UNTESTED")


def report() -> str:
    """Return what a run says about the proxies."""
    return ", ".join(
        name if is_installed(name) else f"{name} is not installed, {kind.file} is UNTESTED"
        for name, kind in KINDS.items()
    )


def _search_path() -> str:
    """Return the search path, with the folders of this environment and of system programs."""
    own = str(Path(sys.executable).parent)
    return os.pathsep.join((own, os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
