"""Settings: environment variables ``MILEPOST_…`` and an optional file, every problem at once."""

from __future__ import annotations

import difflib
import ipaddress
import logging
import os
import re
import ssl
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from dotenv.parser import parse_stream
from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from milepost.domain.callback_url import CallbackRules
from milepost.domain.limits import Limits
from milepost.domain.rates import Allowance, Allowances, read_allowances
from milepost.domain.trust import certificates_from, issuers_from
from milepost.webhooks.masterkeys import read_keys

if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.parse import SplitResult

    from milepost.domain.operation import Principal
    from milepost.domain.trust import Issuer

PREFIX: Final = "MILEPOST_"
FILE_VARIABLE: Final = f"{PREFIX}CONFIG_FILE"
CLIENT_FILES: Final = {
    "ca_file": f"{PREFIX}CA_FILE",
    "certificate_file": f"{PREFIX}CLIENT_CERT_FILE",
    "key_file": f"{PREFIX}CLIENT_KEY_FILE",
}
"""What the command line calls with over TLS: files in PEM."""
OTHERS: Final = frozenset(
    {FILE_VARIABLE, f"{PREFIX}ADDRESS", f"{PREFIX}API_KEY", *CLIENT_FILES.values()}
)
"""Variables that are no settings: where the settings are, and what the command line calls with."""
SECRET: Final = frozenset({"database_url", "limits_url", "webhook_keys"})
"""Settings that are never shown as they are."""
TESTS: Final = f"{PREFIX}TEST_"
"""Variables of the test suite begin with this."""
_DEFAULTS: Final = Limits()
_ALLOWANCE: Final = Allowance()
_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+):(?P<port>\d{1,5})", re.ASCII)
_PASSWORD: Final = re.compile(
    r"(://[^:@/]*):.*@|([?&](?:password|secret|token)=)[^&]*", re.IGNORECASE
)


def _data_folder() -> Path:
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "milepost"


def _default_database() -> SecretStr:
    return SecretStr(f"sqlite:///{_data_folder() / 'milepost.db'}")


Source: TypeAlias = Literal["environment", "file", "default"]
Share = Annotated[float, Field(ge=0, le=1)]
_MONTH_S: Final = 31 * 86_400
_DOMAIN: Final = re.compile(r"[\w-]+(\.[\w-]+)*")
Seconds = Annotated[float, Field(gt=0, le=10 * 365 * 86_400)]
Pause = Annotated[float, Field(ge=0, le=86_400)]
Count = Annotated[int, Field(gt=0, lt=2**31)]


class Settings(BaseSettings):
    """What an operator may choose. Each field is the variable ``MILEPOST_<NAME>``."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file_encoding="utf-8",
        extra="ignore",
        frozen=True,
        validate_default=True,  # so that a check of one field against another always runs
        hide_input_in_errors=True,  # it may be a password
    )

    database_url: SecretStr = Field(
        default_factory=_default_database,
        description="Where operations live: sqlite:///PATH (embedded) or"
        " postgresql+psycopg://USER:PASSWORD@HOST/NAME (server)",
    )
    allow_plaintext: bool = Field(
        default=False, description="Serve gRPC without TLS on other addresses than loopback"
    )
    tls_cert_file: Path | None = Field(
        None, description="Certificate chain of the gRPC port (PEM); its TLS needs the key too"
    )
    tls_key_file: Path | None = Field(None, description="Key of that certificate (PEM)")
    tls_client_ca_file: Path | None = Field(
        None,
        description="Authorities (PEM) of client certificates; then every connection must show one",
    )
    mtls_principals: str | None = Field(
        None, description="Whom client certificates speak for: JSON, see docs/operating.md"
    )
    jwt_issuers: str | None = Field(
        None, description="Issuers of tokens (JWT) that are trusted: JSON, see docs/operating.md"
    )
    listen: str = Field("127.0.0.1:7450", description="Address of the gRPC port")
    http_listen: str = Field(
        "127.0.0.1:7451", description="Address of /healthz, /readyz and /metrics; empty for none"
    )
    reflection: bool = Field(
        default=True, description="Answer server reflection; off in production"
    )
    gathering: bool = Field(default=True, description="Let concurrent calls share a transaction")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least important log line to write"
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="auto: text on a terminal, JSON lines elsewhere"
    )
    otlp_endpoint: str | None = Field(
        None, description="OTLP/gRPC collector for traces, e.g. http://localhost:4317"
    )
    trace_sample_ratio: Share = Field(0.01, description="Share of new traces that are recorded")
    drain_seconds: Pause = Field(20.0, description="How long running calls may take after SIGTERM")
    not_ready_seconds: Pause = Field(
        0.0, description="Pause between reporting not ready and refusing calls, for balancers"
    )
    wait_seconds_max: Seconds = Field(
        60.0, description="Longest wait of WaitOperation and of GetOperation with `prefer: wait`"
    )
    keep_alive_seconds: Seconds = Field(
        20.0, description="Quiet time after which WatchOperation sends a sign of life"
    )
    request_bytes_max: Count = Field(
        2 * 1024 * 1024, description="Largest request message; larger ones are refused by gRPC"
    )
    ttl_min_seconds: Seconds = Field(
        _DEFAULTS.ttl_min.total_seconds(), description="Shortest ttl; shorter ones are raised to it"
    )
    ttl_max_seconds: Seconds = Field(
        _DEFAULTS.ttl_max.total_seconds(), description="Longest ttl; longer ones are cut to it"
    )
    ttl_default_seconds: Seconds = Field(
        _DEFAULTS.ttl_default.total_seconds(),
        description="How long an operation is kept if its caller does not say",
    )
    retry_after_min_seconds: Seconds = Field(
        _DEFAULTS.retry_after_min.total_seconds(), description="Shortest pause between two polls"
    )
    retry_after_max_seconds: Seconds = Field(
        _DEFAULTS.retry_after_max.total_seconds(), description="Longest pause between two polls"
    )
    retry_after_default_seconds: Seconds = Field(
        _DEFAULTS.retry_after_default.total_seconds(),
        description="Pause between two polls that is suggested if the caller does not say",
    )
    lease_min_seconds: Seconds = Field(
        _DEFAULTS.lease_min.total_seconds(), description="Shortest lease of a claim"
    )
    lease_max_seconds: Seconds = Field(
        _DEFAULTS.lease_max.total_seconds(), description="Longest lease of a claim"
    )
    lease_default_seconds: Seconds = Field(
        _DEFAULTS.lease_default.total_seconds(),
        description="How long a claim, and each renewal of it, holds if its worker does not say",
    )
    claim_wait_seconds: Seconds = Field(
        _DEFAULTS.claim_wait.total_seconds(), description="How long a claim may wait for work"
    )
    lease_sweep_seconds: Seconds = Field(
        1.0, description="Pause between two looks for leases that have run out"
    )
    cleanup_seconds: Seconds = Field(
        60.0, description="Pause between two removals of what is past its time"
    )
    measure_seconds: Seconds = Field(
        5.0, description="Pause between two counts of operations that are overdue"
    )
    events_kept_seconds: Seconds = Field(
        604_800.0, description="How long the events of a removed operation are kept"
    )
    max_attempts_default: Count = Field(
        _DEFAULTS.max_attempts_default,
        description="How many workers may lose an operation before it fails",
    )
    metadata_bytes_max: Count = Field(
        _DEFAULTS.metadata_bytes, description="Largest metadata of an operation, as JSON"
    )
    result_bytes_max: Count = Field(
        _DEFAULTS.result_bytes, description="Largest result of an operation"
    )
    errors_bytes_max: Count = Field(
        _DEFAULTS.errors_bytes, description="Largest list of errors of an operation"
    )
    message_length_max: Count = Field(
        _DEFAULTS.message_length, description="Longest progress message, in characters"
    )
    page_size_max: Count = Field(
        _DEFAULTS.page_size_max, description="Most operations on one page of a list"
    )
    stream_interval_seconds: Pause = Field(
        _DEFAULTS.stream_interval.total_seconds(),
        description="Shortest time between two commits of one operation on a progress stream",
    )
    stream_operations_max: Count = Field(
        _DEFAULTS.stream_operations, description="Most operations on one progress stream"
    )
    page_size_default: Count = Field(
        _DEFAULTS.page_size_default,
        description="Operations on a page of a list if its reader does not say",
    )

    active_operations_max: Count = Field(
        _ALLOWANCE.active, description="Active operations of one owner, replicas included"
    )
    creates_per_minute: Count = Field(
        _ALLOWANCE.creates, description="Creates of one principal in 60 s"
    )
    lists_per_minute: Count = Field(_ALLOWANCE.lists, description="Lists of one principal in 60 s")
    reads_per_minute: Count = Field(
        _ALLOWANCE.reads, description="Other reads of one principal in 60 s"
    )
    changes_per_minute: Count = Field(
        _ALLOWANCE.changes,
        description="Cancels, deletes and other changes by one principal in 60 s",
    )
    worker_writes_per_minute: Count = Field(
        _ALLOWANCE.worker_writes,
        description="Writes of one worker in 60 s, messages of streams included",
    )
    principal_limits: str = Field(
        "{}",
        description="Other limits for some principals, as JSON by subject:"
        ' {"alice": {"creates": 500, "active": 100}}',
    )
    limits_url: SecretStr | None = Field(
        None,
        description="Redis or Valkey in which all replicas share their limits,"
        " redis://HOST:6379/0; without it each has its own",
    )
    progress_interval_seconds: Pause = Field(
        0.0, description="Shortest time between two unary progress updates of one operation"
    )
    auth_failures_per_minute: Annotated[int, Field(ge=0, lt=2**31)] = Field(
        60, description="Bad credentials that one address may try in 60 s; 0 for any number"
    )
    calls_max: Count = Field(1_000, description="Calls that run at once; more are refused")
    waiting_calls_max: Count = Field(
        20_000, description="Streams and waiting calls at once; more are refused"
    )

    webhook_keys: SecretStr | None = Field(
        None,
        description="Master keys that encrypt signing secrets: ID:BASE64 of 32 bytes, the current"
        " one first, separated by commas",
    )
    webhook_keys_file: Path | None = Field(
        None, description="File with the master keys, instead of MILEPOST_WEBHOOK_KEYS"
    )
    webhook_allow_http: bool = Field(
        default=False, description="Let callback URLs be http, on the ports 80 and 8080 too"
    )
    webhook_allowed_domains: str = Field(
        "", description="The only domains of callback URLs, separated by commas; empty for any"
    )
    webhook_allowed_networks: str = Field(
        "", description="Private networks that webhooks may go to, such as 10.1.0.0/16"
    )
    webhook_refused_networks: str = Field(
        "", description="Networks that webhooks may not go to, beside those that are not public"
    )
    webhook_allowed_ports: str = Field(
        "", description="Ports of callback URLs beside 443 and 8443, separated by commas"
    )
    webhook_timeout_seconds: Seconds = Field(
        5.0, description="How long one attempt to send a webhook may take"
    )
    webhook_schedule_seconds: str = Field(
        "0,1,2,4,30,300,1800,7200",
        description="Pause before each attempt to send a webhook; as many as there are attempts",
    )
    webhook_concurrency: Count = Field(64, description="Webhooks that a replica sends at once")
    webhook_concurrency_per_host: Count = Field(
        8, description="Webhooks that a replica sends to one host at once"
    )

    @field_validator("webhook_keys")
    @classmethod
    def _usable_keys(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value():
            return None
        read_keys(value.get_secret_value())
        return value

    @field_validator("webhook_allowed_domains")
    @classmethod
    def _domains(cls, value: str) -> str:
        if not all(_DOMAIN.fullmatch(domain) for domain in listed(value)):
            raise ValueError("must be names such as example.com; names below them need no asterisk")
        return value

    @field_validator("webhook_allowed_networks", "webhook_refused_networks")
    @classmethod
    def _networks(cls, value: str) -> str:
        networks(value)
        return value

    @field_validator("webhook_allowed_ports")
    @classmethod
    def _ports(cls, value: str) -> str:
        if not all(port.isdecimal() and 0 < int(port) < 2**16 for port in listed(value)):
            raise ValueError("must be ports, separated by commas")
        return value

    @field_validator("webhook_schedule_seconds")
    @classmethod
    def _schedule(cls, value: str) -> str:
        if not durations(value):
            raise ValueError("must have one pause at least")
        return value

    @field_validator("webhook_keys_file")
    @classmethod
    def _one_source_of_keys(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("webhook_keys") is not None:
            raise ValueError(f"must not be set together with {PREFIX}WEBHOOK_KEYS")
        return value

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        scheme, _, rest = url.partition("://")
        if scheme not in {"sqlite", "postgresql+psycopg"} or not rest:
            raise ValueError("must begin with sqlite:/// or postgresql+psycopg://")
        if scheme == "sqlite" and rest.partition("?")[0].lstrip("/") in {"", ":memory:"}:
            raise ValueError("must name a file: sqlite:///milepost.db, sqlite:////var/lib/x.db")
        if scheme == "sqlite" and not rest.startswith("/"):
            raise ValueError("must have three slashes before the file: sqlite:///milepost.db")
        return value

    @field_validator("listen", "http_listen")
    @classmethod
    def _address(cls, value: str, info: ValidationInfo) -> str:
        if not value and info.field_name == "http_listen":
            return value
        found = _ADDRESS.fullmatch(value)
        if found is None or int(found["port"]) > 65_535:  # noqa: PLR2004 - the last port
            raise ValueError("must be HOST:PORT, an IPv6 address in brackets")
        return value

    @field_validator("listen")
    @classmethod
    def _encrypted(cls, value: str, info: ValidationInfo) -> str:
        # A file that was refused is not in the data; that is then the problem, not this.
        plaintext = info.data.get("tls_cert_file", True) is None
        if plaintext and not is_loopback(value) and info.data.get("allow_plaintext") is False:
            raise ValueError(
                f"is reachable from outside, without TLS: set {PREFIX}TLS_CERT_FILE, listen on"
                f" loopback, or set {PREFIX}ALLOW_PLAINTEXT=true behind a proxy that does TLS"
            )
        return value

    @field_validator(
        *("tls_cert_file", "tls_key_file", "tls_client_ca_file", "mtls_principals", "jwt_issuers"),
        mode="before",
    )
    @classmethod
    def _none_if_empty(cls, value: Any) -> Any:
        return value or None

    @field_validator("tls_cert_file", "tls_key_file", "tls_client_ca_file")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        if value is not None:
            _require_file(value)
        return value

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
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(value)
        except ssl.SSLError:
            raise ValueError("has no certificate (PEM)") from None
        return value

    @field_validator("mtls_principals")
    @classmethod
    def _certificates(cls, value: str | None, info: ValidationInfo) -> str | None:
        found = certificates_from(value or "")
        if found and info.data.get("tls_client_ca_file", value) is None:
            raise ValueError(f"needs {PREFIX}TLS_CLIENT_CA_FILE")
        return value

    @field_validator("jwt_issuers")
    @classmethod
    def _issuers(cls, value: str | None) -> str | None:
        for issuer in issuers_from(value or ""):
            if issuer.jwks_file is not None:
                _require_file(Path(issuer.jwks_file))
        return value

    @field_validator("http_listen")
    @classmethod
    def _another_port(cls, value: str, info: ValidationInfo) -> str:
        if value and value == info.data.get("listen") and not value.endswith(":0"):
            raise ValueError(f"must differ from {PREFIX}LISTEN")
        return value

    @field_validator("otlp_endpoint")
    @classmethod
    def _collector(cls, value: str | None) -> str | None:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value or None

    @field_validator("principal_limits")
    @classmethod
    def _allowances_given(cls, value: str) -> str:
        _, problems = read_allowances(value, _ALLOWANCE)
        if problems:
            raise ValueError("; ".join(problems))
        return value

    @field_validator("limits_url")
    @classmethod
    def _limits_store(cls, value: SecretStr | None) -> SecretStr | None:
        url = value.get_secret_value() if value else ""
        if not url:
            return None
        parts = urlsplit(url)
        if parts.scheme not in {"redis", "rediss"} or not parts.hostname:
            raise ValueError("must be redis://HOST:PORT/NUMBER, or rediss:// with TLS")
        if _port(parts) is None or not re.fullmatch(r"/?\d*", parts.path, re.ASCII):
            raise ValueError("must have a port from 1 to 65535 and a number as its path, if any")
        return value

    @field_validator(
        "ttl_default_seconds",
        "retry_after_default_seconds",
        "lease_default_seconds",
        "page_size_default",
    )
    @classmethod
    def _between(cls, value: float, info: ValidationInfo) -> float:
        name = str(info.field_name)
        least = info.data.get(name.replace("default", "min"), 1)
        most = info.data.get(name.replace("default", "max"), value)
        if not least <= value <= most:
            raise ValueError(f"must lie between the smallest, {least}, and the largest, {most}")
        return value

    @property
    def limits(self) -> Limits:
        """The product's limits as configured."""
        return Limits(
            ttl_default=timedelta(seconds=self.ttl_default_seconds),
            ttl_min=timedelta(seconds=self.ttl_min_seconds),
            ttl_max=timedelta(seconds=self.ttl_max_seconds),
            retry_after_default=timedelta(seconds=self.retry_after_default_seconds),
            retry_after_min=timedelta(seconds=self.retry_after_min_seconds),
            retry_after_max=timedelta(seconds=self.retry_after_max_seconds),
            lease_default=timedelta(seconds=self.lease_default_seconds),
            lease_min=timedelta(seconds=self.lease_min_seconds),
            lease_max=timedelta(seconds=self.lease_max_seconds),
            claim_wait=timedelta(seconds=self.claim_wait_seconds),
            max_attempts_default=self.max_attempts_default,
            metadata_bytes=self.metadata_bytes_max,
            result_bytes=self.result_bytes_max,
            errors_bytes=self.errors_bytes_max,
            message_length=self.message_length_max,
            page_size_default=self.page_size_default,
            page_size_max=self.page_size_max,
            stream_interval=timedelta(seconds=self.stream_interval_seconds),
            stream_operations=self.stream_operations_max,
        )

    @property
    def allowances(self) -> Allowances:
        """What each principal may do, as configured."""
        default = Allowance(
            creates=self.creates_per_minute,
            lists=self.lists_per_minute,
            reads=self.reads_per_minute,
            changes=self.changes_per_minute,
            worker_writes=self.worker_writes_per_minute,
            active=self.active_operations_max,
        )
        special, _ = read_allowances(self.principal_limits, default)
        return Allowances(default=default, by_subject=special)

    @property
    def callback_rules(self) -> CallbackRules:
        """Where webhooks may go, as configured."""
        return CallbackRules(
            allow_http=self.webhook_allow_http,
            allowed_domains=tuple(listed(self.webhook_allowed_domains)),
            allowed_networks=networks(self.webhook_allowed_networks),
            refused_networks=networks(self.webhook_refused_networks),
            allowed_ports=tuple(int(port) for port in listed(self.webhook_allowed_ports)),
            length=self.limits.callback_url_length,
        )

    @property
    def trusted_issuers(self) -> tuple[Issuer, ...]:
        """Whose tokens are believed."""
        return issuers_from(self.jwt_issuers or "")

    @property
    def mtls_certificates(self) -> dict[str, Principal]:
        """Whom client certificates speak for, by their names."""
        return certificates_from(self.mtls_principals or "")

    @property
    def embedded(self) -> bool:
        """Whether operations live in a SQLite file beside the one process that serves them."""
        return self.database_url.get_secret_value().startswith("sqlite")


def listed(text: str) -> list[str]:
    """Return the items of a list that is separated by commas."""
    return [item for part in text.split(",") if (item := part.strip())]


def networks(text: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Return the networks of a list; raise ValueError if one is none."""
    return tuple(ipaddress.ip_network(item) for item in listed(text))


def durations(text: str) -> tuple[timedelta, ...]:
    """Return the durations of a list of seconds; raise ValueError if one is none."""
    seconds = [float(item) for item in listed(text)]
    if not all(0 <= each <= _MONTH_S for each in seconds):
        raise ValueError("must be from 0 to a month")
    return tuple(timedelta(seconds=each) for each in seconds)


class SettingsError(ValueError):
    """The settings cannot be used; `problems` has one line for each reason, without secrets."""

    def __init__(self, problems: list[str]) -> None:
        """Name every problem at once."""
        self.problems = problems
        super().__init__("; ".join(problems))


def load(**overrides: Any) -> Settings:
    """Return the settings: `overrides` before environment before the file before defaults.

    Raises:
        SettingsError: naming every problem at once.
    """
    file, problems = _file_problems()
    logging.getLogger("dotenv.main").setLevel(logging.ERROR)  # what it warns of is a problem here
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = Settings(_env_file=file, **given)  # type: ignore[call-arg]
    except ValidationError as error:
        problems += [_line(item) for item in error.errors()]
    else:
        if not problems:
            return settings
    raise SettingsError(problems)


def _require_file(path: Path) -> None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None


def _line(item: Any) -> str:
    """Return one problem as a line: the variable, what is wrong, and what it is unless secret."""
    name = str(item["loc"][0]) if item["loc"] else ""
    text = str(item["msg"]).removeprefix("Value error, ")
    found = "" if name in SECRET else f" (found {mask(repr(item['input']))})"
    return f"{_variable(name)}: {text}{found}"


def _file_problems() -> tuple[Path | None, list[str]]:
    """Return the file of settings, if there is one to be read, and what is wrong with it."""
    name = os.environ.get(FILE_VARIABLE)
    if not name:
        return None, []
    try:
        with Path(name).open(encoding="utf-8") as stream:
            broken = [line.original.line for line in parse_stream(stream) if line.error]
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "is no text in UTF-8"
        return None, [f"{FILE_VARIABLE}: {name}: {why}"]
    return Path(name), [f"{FILE_VARIABLE}: {name}: line {n} is not KEY=VALUE" for n in broken]


# --- what check-config shows ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One setting as it is in force, fit to be shown: secrets are masked."""

    name: str
    value: Any
    source: Source
    description: str


def entries(settings: Settings | None) -> list[Entry]:
    """Return every setting with its value and where it comes from.

    Without `settings`, because there are problems, values that were given are shown as given.
    """
    environment, file = _given(os.environ), _given(_file_values())
    shown = []
    for name, field in Settings.model_fields.items():
        variable = _variable(name)
        source: Source = "default"
        if variable in environment or variable in file:
            source = "environment" if variable in environment else "file"
        value = environment.get(variable, file.get(variable))
        if settings is not None:
            value = getattr(settings, name)
        elif value is None:
            value = field.get_default(call_default_factory=True)
        shown.append(
            Entry(
                name=variable,
                value=_shown(value) if name not in _KEYS else _only_ids(value),
                source=source,
                description=field.description or "",
            )
        )
    return shown


def unknown_variables() -> list[str]:
    """Return one line for every variable that looks like a setting and is none."""
    known = {_variable(name) for name in Settings.model_fields}
    around = {name for name in _given(os.environ) if name.startswith(PREFIX)}
    strange = {name for name in around - known - OTHERS if not name.startswith(TESTS)}
    in_file = set(_given(_file_values())) - known
    return [
        *(f"{name} is no setting{_hint(name, known)}" for name in sorted(strange)),
        *(
            f"{name} in {FILE_VARIABLE} is no setting{_hint(name, known)}"
            for name in sorted(in_file)
        ),
    ]


def mask(text: str) -> str:
    """Return `text` with the passwords inside URLs replaced."""
    return _PASSWORD.sub(lambda found: f"{found[1]}:***@" if found[1] else f"{found[2]}***", text)


def client_tls_files() -> dict[str, str]:
    """Return the files that the command line's own TLS is configured with, if any."""
    given = {name: os.environ.get(variable) for name, variable in CLIENT_FILES.items()}
    return {name: file for name, file in given.items() if file}


def without_settings() -> dict[str, str]:
    """Return the environment of this process less every variable of Milepost."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


def _port(parts: SplitResult) -> int | None:
    """Return the port of a URL, the usual one of Redis if it has none, or nothing if it is bad."""
    try:
        return parts.port or 6_379
    except ValueError:
        return None


def is_loopback(address: str) -> bool:
    """Tell whether only this machine can reach `address`, a HOST:PORT."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _variable(name: str) -> str:
    return f"{PREFIX}{name.upper()}"


def _given(variables: Mapping[str, str | None]) -> dict[str, str | None]:
    return {name.upper(): value for name, value in variables.items()}


def _file_values() -> dict[str, str | None]:
    file, _ = _file_problems()
    if file is None:
        return {}
    with file.open(encoding="utf-8") as stream:
        return {line.key: line.value for line in parse_stream(stream) if line.key}


_KEYS: Final = frozenset({"webhook_keys"})
"""Settings of which only the ids of keys are ever shown."""


def _only_ids(value: Any) -> str | None:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if text is None:
        return None
    ids = (item.partition(":") for item in listed(text))
    return ",".join(f"{id_}:***" if colon else "***" for id_, colon, _ in ids)


def _shown(value: Any) -> Any:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, Path):
        value = str(value)
    return mask(value) if isinstance(value, str) else value


def _hint(variable: str, known: set[str]) -> str:
    near = difflib.get_close_matches(variable, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
