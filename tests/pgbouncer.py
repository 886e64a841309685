"""A real PgBouncer in front of the PostgreSQL of the tests.

``MILEPOST_TEST_PGBOUNCER=1`` makes the absence of pgbouncer a failure. It is in the Debian package
of its name. The header of a run says whether it is there.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import make_url

from tests.machine import free_port
from tests.postgres_binaries import temporary_root
from tests.programs import Program, listens
from tests.waiting import eventually

PROGRAM: Final = Program(
    command="pgbouncer",
    variable="MILEPOST_TEST_PGBOUNCER",
    absence="pgbouncer is not installed (apt install pgbouncer)",
)
START_S: Final = 20.0
_CONFIGURATION: Final = """
[databases]
* = host={host} port={target}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
{settings}
"""


@contextmanager
def pgbouncer(url: str, **settings: str | Path) -> Iterator[str]:
    """Run PgBouncer; return the URL of the same database behind it. Skip the test without one.

    A setting that is a file is copied to where PgBouncer may read it.
    """
    program = PROGRAM.require()
    target, port = make_url(url), free_port()
    # Root may not run it, and its other accounts may not read the folders of the tests.
    account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="mp-pgbouncer-", dir=temporary_root()) as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "users").write_text(f'"{target.username}" ""\n')
        for key, value in settings.items():
            if isinstance(value, Path):
                settings[key] = shutil.copyfile(value, folder / key)
        lines = "\n".join(f"{key} = {value}" for key, value in settings.items())
        configuration = _CONFIGURATION.format(
            host=target.host, target=target.port, port=port, folder=folder, settings=lines
        )
        (folder / "pgbouncer.ini").write_text(configuration)
        process = subprocess.Popen(
            [program, "-q", folder / "pgbouncer.ini"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            user=account and account.pw_uid,
            group=account and account.pw_gid,
            extra_groups=None if account is None else [],
        )
        try:
            eventually(lambda: _listens(process, port), within=START_S, what="pgbouncer listens")
            behind = target.set(host="127.0.0.1", port=port)
            yield behind.render_as_string(hide_password=False)
        finally:
            process.kill()
            process.wait()


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    assert process.poll() is None, "pgbouncer has ended"
    return listens(f"127.0.0.1:{port}")
