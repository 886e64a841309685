"""Settings of webhooks: their keys, their receivers and their schedule."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, SecretStr, ValidationInfo, field_validator

from milepost.config.environment import PREFIX
from milepost.config.values import (
    EMPTY_IS_NONE,
    Count,
    ReadableFile,
    Seconds,
    domains,
    networks,
    pauses,
    ports,
    read_by,
    require_authorities,
)
from milepost.domain.callback_url import CallbackRules
from milepost.domain.limits import Limits
from milepost.webhooks.master_keys import read_keys


class WebhookSettings(BaseModel):
    """The master keys, the rules for receivers, and the schedule of attempts."""

    webhook_keys: Annotated[SecretStr | None, EMPTY_IS_NONE] = Field(
        None,
        description="Master keys that encrypt signing secrets: ID:BASE64 of 32 bytes, the current"
        " one first, separated by commas",
    )
    webhook_keys_file: Annotated[Path | None, EMPTY_IS_NONE] = Field(
        None, description="File with the master keys, instead of MILEPOST_WEBHOOK_KEYS"
    )
    webhook_allow_http: bool = Field(
        default=False, description="Accept callback URLs with http too, on the ports 80 and 8080"
    )
    webhook_allowed_domains: Annotated[str, read_by(domains)] = Field(
        "", description="Allowed domains of callback URLs, separated by commas; empty for any"
    )
    webhook_allowed_networks: Annotated[str, read_by(networks)] = Field(
        "", description="Private networks that webhooks may be sent to, such as 10.1.0.0/16"
    )
    webhook_refused_networks: Annotated[str, read_by(networks)] = Field(
        "",
        description="Networks that webhooks may not be sent to, beside those that are not public",
    )
    webhook_allowed_ports: Annotated[str, read_by(ports)] = Field(
        "", description="Further ports of callback URLs beside 443 and 8443, separated by commas"
    )
    webhook_ca_file: ReadableFile = Field(
        None,
        description="File with certificate authorities (PEM) of webhook receivers, trusted beside"
        " those of the system",
    )
    webhook_timeout_seconds: Seconds = Field(5.0, description="Time limit of one delivery attempt")
    webhook_schedule_seconds: Annotated[str, read_by(pauses)] = Field(
        "0,1,2,4,30,300,1800,7200",
        description="Pause before each delivery attempt; one value for each attempt",
    )
    webhook_concurrency: Count = Field(
        512, description="Concurrent delivery attempts of one replica"
    )
    webhook_concurrency_per_host: Count = Field(
        8, description="Concurrent delivery attempts of one replica to one host"
    )

    @field_validator("webhook_keys")
    @classmethod
    def _usable_keys(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            read_keys(value.get_secret_value())
        return value

    @field_validator("webhook_keys_file")
    @classmethod
    def _one_source_of_keys(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("webhook_keys") is not None:
            raise ValueError(f"must not be set together with {PREFIX}WEBHOOK_KEYS")
        return value

    @field_validator("webhook_ca_file")
    @classmethod
    def _usable_authorities(cls, value: Path | None) -> Path | None:
        if value is not None:
            require_authorities(value)
        return value

    @property
    def callback_rules(self) -> CallbackRules:
        """The configured rules for receivers."""
        return CallbackRules(
            allow_http=self.webhook_allow_http,
            allowed_domains=domains(self.webhook_allowed_domains),
            allowed_networks=networks(self.webhook_allowed_networks),
            refused_networks=networks(self.webhook_refused_networks),
            allowed_ports=ports(self.webhook_allowed_ports),
            max_length=Limits().callback_url_length,
        )

    @property
    def webhook_schedule(self) -> tuple[timedelta, ...]:
        """The configured pause before each delivery attempt."""
        return pauses(self.webhook_schedule_seconds)
