"""Real proxies in front of a service: those that are installed, each with its default buffers.

``MILEPOST_TEST_PROXIES`` names the proxies that must be there, such as ``nginx,haproxy``: then
their tests fail without them. The header of a run says which ones it uses.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.machine import free_port
from tests.waiting import eventually

VARIABLE: Final = "MILEPOST_TEST_PROXIES"
START_S: Final = 10.0
_NGINX: Final = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 0;
    grpc_read_timeout 1h;
    grpc_send_timeout 1h;
    server {{
        listen {address} http2;
        location / {{ grpc_pass grpc://{target}; }}
    }}
}}
"""
_HAPROXY: Final = """
global
    maxconn 512
defaults
    mode http
    timeout connect 2s
    timeout client 1h
    timeout server 1h
frontend front
    bind {address} proto h2
    default_backend back
backend back
    server replica {target} proto h2
"""
CONFIGURATIONS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "nginx": (_NGINX, ("-p", "{folder}", "-e", "{folder}/error.log", "-c", "{file}")),
    "haproxy": (_HAPROXY, ("-db", "-f", "{file}")),
}
"""The configuration of each proxy, and the arguments of its program."""


def installed() -> list[str]:
    """Return the names of the proxies that the tests use."""
    demanded = os.environ.get(VARIABLE)
    if demanded:
        return demanded.split(",")
    return [name for name in CONFIGURATIONS if shutil.which(name, path=_search_path())]


@contextmanager
def running_proxy(name: str, target: str, folder: Path) -> Iterator[str]:
    """Run a proxy to the address of a service, and return its own address."""
    program = shutil.which(name, path=_search_path())
    assert program is not None, f"{name} is not installed"
    configuration, arguments = CONFIGURATIONS[name]
    port = free_port()
    places = {"folder": str(folder), "file": str(folder / f"{name}.conf"), "target": target}
    places["address"] = f"127.0.0.1:{port}"
    Path(places["file"]).write_text(configuration.format(**places), encoding="ascii")
    process = subprocess.Popen(
        [program, *(argument.format(**places) for argument in arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def listens() -> bool:
        assert process.poll() is None, f"{name} has ended"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True

    try:
        eventually(listens, within=START_S, what=f"{name} listens")
        yield places["address"]
    finally:
        process.kill()
        process.wait()


def _search_path() -> str:
    """Return the search path with the folders of system programs."""
    return os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
