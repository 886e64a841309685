"""Settings of access: TLS, client certificates and trusted token issuers."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from milepost.config.environment import PREFIX
from milepost.config.redaction import redacted
from milepost.config.values import (
    EMPTY_IS_NONE,
    ReadableFile,
    read_by,
    readable,
    require_authorities,
)
from milepost.domain.trust import certificates_from, issuers_from, reserved_prefixes

if TYPE_CHECKING:
    from milepost.domain.operation import Principal
    from milepost.domain.trust import Issuer


def _issuers_with_files(text: str) -> tuple[Issuer, ...]:
    issuers = issuers_from(text)
    for issuer in issuers:
        if issuer.jwks_file is not None:
            _require_readable(issuer.jwks_file)
    return issuers


def _require_readable(file: str) -> None:
    try:
        readable(Path(file))
    except ValueError as error:
        raise ValueError(f"{redacted('jwks_file', file)}: {error}") from None


class AccessSettings(BaseModel):
    """Encryption of the gRPC port, and the credentials accepted beside API keys."""

    allow_plaintext: bool = Field(
        default=False, description="Serve gRPC without TLS on other addresses than loopback"
    )
    tls_cert_file: ReadableFile = Field(
        None, description="Certificate chain of the gRPC port (PEM); TLS needs the key too"
    )
    tls_key_file: ReadableFile = Field(None, description="Key of that certificate (PEM)")
    tls_client_ca_file: ReadableFile = Field(
        None,
        description="CAs (PEM) of client certificates; if set, every connection must present one",
    )
    jwt_issuers: Annotated[Annotated[str, read_by(_issuers_with_files)] | None, EMPTY_IS_NONE] = (
        Field(
            None,
            description="Trusted issuers of tokens (JWT): JSON, see docs/operating.md",
        )
    )
    mtls_principals: Annotated[str | None, EMPTY_IS_NONE] = Field(
        None, description="Principals of client certificates: JSON, see docs/operating.md"
    )

    # An invalid field is missing from `info.data`; only that first problem is reported then.

    @field_validator("tls_key_file")
    @classmethod
    def _pair(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        certificate = info.data.get("tls_cert_file")
        if (value is None) != (certificate is None) and "tls_cert_file" in info.data:
            raise ValueError(f"and {PREFIX}TLS_CERT_FILE need each other")
        if value is not None and certificate is not None:
            try:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(certificate, value, password="")
            except (ssl.SSLError, OSError):
                raise ValueError(
                    f"is not the unencrypted key of the certificate in {PREFIX}TLS_CERT_FILE"
                ) from None
        return value

    @field_validator("tls_client_ca_file")
    @classmethod
    def _authorities(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is None:
            return value
        if info.data.get("tls_cert_file", value) is None:
            raise ValueError(f"needs {PREFIX}TLS_CERT_FILE")
        require_authorities(value)
        return value

    @field_validator("mtls_principals")
    @classmethod
    def _certificates(cls, value: str | None, info: ValidationInfo) -> str | None:
        issuers = issuers_from(info.data.get("jwt_issuers") or "")
        found = certificates_from(value or "", reserved_prefixes(issuers))
        if found and info.data.get("tls_client_ca_file", value) is None:
            raise ValueError(f"needs {PREFIX}TLS_CLIENT_CA_FILE")
        return value

    @property
    def trusted_issuers(self) -> tuple[Issuer, ...]:
        """The trusted issuers of tokens."""
        return issuers_from(self.jwt_issuers or "")

    @property
    def reserved_subjects(self) -> tuple[str, ...]:
        """The prefixes that only the subjects of trusted issuers may have."""
        return reserved_prefixes(self.trusted_issuers)

    @property
    def mtls_certificates(self) -> dict[str, Principal]:
        """The principals of client certificates, by the name in the certificate."""
        return certificates_from(self.mtls_principals or "")
