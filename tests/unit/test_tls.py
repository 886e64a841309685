"""TLS files that are replaced: a usable pair is used at once, and any other one is reported."""

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from milepost import telemetry, tls
from milepost.tls import TlsFiles, TlsPair, UnusableFilesError
from tests.certificates import SERVER, Authority, Pair
from tests.waiting import until

EXPIRED = -timedelta(minutes=1)


@dataclass
class Renewal:
    """A pair in use, its files, and what was noted of them."""

    authority: Authority
    files: TlsFiles
    pair: TlsPair
    noted: list[str | None] = field(default_factory=list)

    def replace(self, new: Pair) -> None:
        """Put another pair in the place of the files."""
        shutil.copy(new.certificate, self.files.certificate)
        shutil.copy(new.key, self.files.key)


@pytest.fixture
def renewal(tmp_path, monkeypatch) -> Renewal:
    """A pair whose files a test replaces."""
    monkeypatch.setattr(tls, "LOOK_INTERVAL_S", 0.01)
    authority = Authority(tmp_path)
    made = authority.certify(*SERVER)
    files = TlsFiles(certificate=made.certificate, key=made.key)
    noted: list[str | None] = []
    return Renewal(authority, files, TlsPair(files, noted.append), noted)


def metric(name: str) -> float | None:
    """Return the value of a metric."""
    labels = {"certificate": "server"} if "expiry" in name else {}
    return telemetry.registry.get_sample_value(name, labels)


def mismatched(renewal: Renewal) -> str:
    """Replace the key alone."""
    shutil.copy(renewal.authority.certify(*SERVER).key, renewal.files.key)
    return f"{renewal.files.key} is not the key of the certificate"


def malformed(renewal: Renewal) -> str:
    """Replace the certificate by a text."""
    renewal.files.certificate.write_text("nothing")
    return f"{renewal.files.certificate} has no certificate (PEM)"


def empty_key(renewal: Renewal) -> str:
    """Replace the key by an empty file."""
    renewal.files.key.write_bytes(b"")
    return f"{renewal.files.key} has no unencrypted key (PEM)"


def removed(renewal: Renewal) -> str:
    """Remove the key."""
    renewal.files.key.unlink()
    return f"{renewal.files.key}: No such file or directory"


def unreadable(renewal: Renewal) -> str:
    """Put a folder in the place of the key, which not even root can read."""
    renewal.files.key.unlink()
    renewal.files.key.mkdir()
    return f"{renewal.files.key}: Is a directory"


def expired(renewal: Renewal) -> str:
    """Replace both by a pair that has expired."""
    renewal.replace(renewal.authority.certify(*SERVER, expires_in=EXPIRED))
    return "the certificate has expired at "


@pytest.mark.parametrize("damage", [mismatched, malformed, empty_key, removed, unreadable, expired])
async def test_unusable_files(renewal, lines, damage: Callable[[Renewal], str]):
    """Files that cannot be used are an error line, a metric and a note; the old pair serves on.

    They are reported once, and no more once they can be used.
    """
    before = renewal.pair.renew()
    problem = damage(renewal)
    assert renewal.pair.renew() is before
    watching = asyncio.create_task(renewal.pair.watch())
    await until(lambda: renewal.noted)
    await asyncio.sleep(5 * tls.LOOK_INTERVAL_S)  # some more looks
    assert renewal.pair.renew() is before
    assert len(renewal.noted) == 1
    assert str(renewal.noted[0]).startswith(problem)
    assert metric("milepost_tls_files_unusable") == 1
    assert metric("milepost_tls_certificate_expiry_timestamp_seconds") == before.end.timestamp()
    (line,) = lines()
    assert (line["level"], line["event"]) == ("error", "TLS files not usable")
    assert line["problem"] == renewal.noted[0]
    assert line["expire_time"] == before.end.isoformat()
    if renewal.files.key.is_dir():
        renewal.files.key.rmdir()
    renewal.replace(renewal.authority.certify(*SERVER, expires_in=timedelta(days=9)))
    await until(lambda: renewal.noted[1:] == [None])
    watching.cancel()
    assert renewal.pair.renew() is not before
    assert metric("milepost_tls_files_unusable") == 0
    expiry = renewal.pair.renew().end.timestamp()
    assert metric("milepost_tls_certificate_expiry_timestamp_seconds") == expiry
    await asyncio.sleep(0)  # lines are written in the next turn
    assert [each["event"] for each in lines()] == ["TLS files read again"]


async def test_half_of_a_pair_is_no_error(renewal, lines):
    """While the two files are replaced one after the other, nothing is reported."""
    before, new = renewal.pair.renew(), renewal.authority.certify(*SERVER)
    shutil.copy(new.certificate, renewal.files.certificate)
    assert renewal.pair.renew() is before
    renewal.pair._report()
    shutil.copy(new.key, renewal.files.key)
    assert renewal.pair.renew() is not before
    renewal.pair._report()
    await asyncio.sleep(0)  # lines are written in the next turn
    assert [each["event"] for each in lines()] == ["TLS files read again"]
    assert renewal.noted == []


async def test_pair_in_use_expires(renewal, lines):
    """A pair that expires while it is in use is reported, and replaced by an expired one, too."""
    renewal.replace(renewal.authority.certify(*SERVER, expires_in=timedelta(seconds=2)))
    short = renewal.pair.renew()
    watching = asyncio.create_task(renewal.pair.watch())
    await until(lambda: renewal.noted)
    assert str(renewal.noted[0]).startswith("the certificate has expired at ")
    renewal.replace(renewal.authority.certify(*SERVER, expires_in=EXPIRED))
    await until(lambda: renewal.pair.renew() is not short)
    await asyncio.sleep(5 * tls.LOOK_INTERVAL_S)
    watching.cancel()
    assert {each["level"] for each in lines()} == {"info", "error"}


def test_files_that_cannot_be_used_at_the_start(tmp_path: Path):
    """Without a usable pair there is nothing to begin with."""
    pair, other = (Authority(tmp_path).certify(*SERVER) for _ in range(2))
    with pytest.raises(UnusableFilesError, match="is not the key"):
        TlsPair(TlsFiles(certificate=pair.certificate, key=other.key))
    with pytest.raises(UnusableFilesError, match="has no certificate"):
        TlsPair(TlsFiles(certificate=pair.certificate, key=pair.key, client_authorities=pair.key))
