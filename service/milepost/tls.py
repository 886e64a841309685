"""The certificate and key of the ports: read from their files, and again when these are replaced.

A pair that cannot be used never replaces one that can: the error is in the log, once, and the last
good pair stays in use.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from milepost import telemetry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

LOOK_INTERVAL_S: Final = 1.0
"""Interval at which the files are looked at without a handshake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """The files of the server's certificate chain and key, and of its clients' authorities."""

    certificate: Path
    key: Path
    client_authorities: Path | None = None
    """If given, every connection must show a certificate of one of these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsContent:
    """Content of the files that fits together."""

    certificate: bytes
    key: bytes
    client_authorities: bytes | None
    begin: datetime
    end: datetime
    """Time at which the first certificate of the chain expires."""
    context: ssl.SSLContext
    """The same for `ssl`."""

    def invalidity(self) -> str | None:
        """Return why clients refuse the certificate now, or None."""
        now = datetime.now(UTC)
        if now > self.end:
            return f"the certificate has expired at {self.end.isoformat()}"
        if now < self.begin:
            return f"the certificate is valid from {self.begin.isoformat()} on"
        return None


class UnusableFilesError(ValueError):
    """TLS files that cannot be used. The text has the reason."""


class TlsPair:
    """The content in use, which changes when the files hold another usable one.

    Handshakes call `renew`, in any thread. Only `watch` reports, on the event loop.
    """

    def __init__(
        self,
        files: TlsFiles,
        note_problem: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        """Read the files.

        Args:
            files: the files.
            note_problem: called with the reason why the files cannot be used, and with None once
                they can.

        Raises:
            UnusableFilesError: they have no certificate with its key.
        """
        self._files = files
        self._note_problem = note_problem
        self._lock = threading.Lock()
        self._seen = self._state()
        self._content = self._reported_content = _read(files)
        self._problem: str | None = None
        """The reason why the files as last seen cannot be used."""
        self._last_problem: str | None = None
        self._reported_problem: str | None = None
        telemetry.record_certificate(expire_time=self._content.end, is_usable=True)

    @property
    def has_client_authorities(self) -> bool:
        """True if every connection must show a certificate."""
        return self._files.client_authorities is not None

    def renew(self) -> TlsContent:
        """Return the content to use, which is that of the files if it can be used. Never fails."""
        with self._lock:
            try:
                self._look()
            except UnusableFilesError as error:
                self._problem = str(error)
            return self._content

    def _look(self) -> None:
        state = self._state()
        if state == self._seen:
            return
        try:
            found = _read(self._files)
        finally:
            if state == self._state():  # nothing was replaced meanwhile
                self._seen = state
        self._problem = found.invalidity()
        if state == self._seen and (self._problem is None or self._content.invalidity()):
            self._content = found

    def _state(self) -> object:
        """Return what differs when a file is another one, or has other permissions."""
        files = (self._files.certificate, self._files.key, self._files.client_authorities)
        try:
            stats = [file.stat() for file in files if file is not None]
        except OSError as error:
            raise UnusableFilesError(_text(error)) from error
        return [(each.st_ino, each.st_mtime_ns, each.st_ctime_ns, each.st_size) for each in stats]

    async def watch(self) -> None:
        """Look at the files every so often, and report what has changed, until cancelled."""
        while True:
            self.renew()
            self._report()
            await asyncio.sleep(LOOK_INTERVAL_S)

    def _report(self) -> None:
        content = self._content
        problem, last = self._problem or content.invalidity(), self._last_problem
        self._last_problem = problem
        if content is not self._reported_content:
            self._reported_content = content
            telemetry.log.info("TLS files read again", expire_time=content.end.isoformat())
        if problem is not None and problem != last:
            return  # half of a pair, perhaps, whose other half is about to be replaced
        telemetry.record_certificate(expire_time=content.end, is_usable=problem is None)
        if problem == self._reported_problem:
            return
        self._reported_problem = problem
        self._note_problem(problem)
        if problem is not None:
            telemetry.log.error(
                "TLS files not usable", problem=problem, expire_time=content.end.isoformat()
            )


def _read(files: TlsFiles) -> TlsContent:
    certificate, key = _bytes(files.certificate), _bytes(files.key)
    authorities = None
    first = _certificates(certificate, files.certificate)[0]
    if _public(first.public_key()) != _public(_private_key(key, files.key).public_key()):
        raise UnusableFilesError(f"{files.key} is not the key of the certificate")
    if files.client_authorities is not None:
        authorities = _bytes(files.client_authorities)
        _certificates(authorities, files.client_authorities)
    return TlsContent(
        certificate=certificate,
        key=key,
        client_authorities=authorities,
        begin=first.not_valid_before_utc,
        end=first.not_valid_after_utc,
        context=_context(files),
    )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnusableFilesError(_text(error)) from error


def _certificates(content: bytes, path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise UnusableFilesError(f"{path} has no certificate (PEM)") from error


def _private_key(content: bytes, path: Path) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UnusableFilesError(f"{path} has no unencrypted key (PEM)") from error


def _public(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(files.certificate, files.key, password="")
        if files.client_authorities is not None:
            context.load_verify_locations(files.client_authorities)
    except OSError as error:  # of which SSLError is one
        raise UnusableFilesError(_text(error)) from error
    if files.client_authorities is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.num_tickets = 0  # a resumed session would bypass a renewed list of authorities
    return context


def _text(error: OSError) -> str:
    """Return the file and what is wrong with it."""
    reason = getattr(error, "reason", None) or os.strerror(error.errno or 0)
    return f"{error.filename}: {reason}" if error.filename else str(reason)
