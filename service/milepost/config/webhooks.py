"""Where webhooks may go, what signs them, and when they are sent."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, SecretStr, ValidationInfo, field_validator

from milepost.config.environment import PREFIX
from milepost.config.values import (
    EMPTY_IS_NONE,
    Count,
    Seconds,
    domains,
    networks,
    pauses,
    ports,
    read_by,
)
from milepost.domain.callback_url import CallbackRules
from milepost.domain.limits import Limits
from milepost.webhooks.master_keys import read_keys


class WebhookSettings(BaseModel):
    """Webhooks: their keys, their receivers and their schedule."""

    webhook_keys: Annotated[SecretStr | None, EMPTY_IS_NONE] = Field(
        None,
        description="Master keys that encrypt signing secrets: ID:BASE64 of 32 bytes, the current"
        " one first, separated by commas",
    )
    webhook_keys_file: Annotated[Path | None, EMPTY_IS_NONE] = Field(
        None, description="File with the master keys, instead of MILEPOST_WEBHOOK_KEYS"
    )
    webhook_allow_http: bool = Field(
        default=False, description="Let callback URLs be http, on the ports 80 and 8080 too"
    )
    webhook_allowed_domains: Annotated[str, read_by(domains)] = Field(
        "", description="The only domains of callback URLs, separated by commas; empty for any"
    )
    webhook_allowed_networks: Annotated[str, read_by(networks)] = Field(
        "", description="Private networks that webhooks may go to, such as 10.1.0.0/16"
    )
    webhook_refused_networks: Annotated[str, read_by(networks)] = Field(
        "", description="Networks that webhooks may not go to, beside those that are not public"
    )
    webhook_allowed_ports: Annotated[str, read_by(ports)] = Field(
        "", description="Ports of callback URLs beside 443 and 8443, separated by commas"
    )
    webhook_timeout_seconds: Seconds = Field(
        5.0, description="How long one attempt to send a webhook may take"
    )
    webhook_schedule_seconds: Annotated[str, read_by(pauses)] = Field(
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
        if value is not None:
            read_keys(value.get_secret_value())
        return value

    @field_validator("webhook_keys_file")
    @classmethod
    def _one_source_of_keys(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("webhook_keys") is not None:
            raise ValueError(f"must not be set together with {PREFIX}WEBHOOK_KEYS")
        return value

    @property
    def callback_rules(self) -> CallbackRules:
        """Where webhooks may go, as configured."""
        return CallbackRules(
            allow_http=self.webhook_allow_http,
            allowed_domains=domains(self.webhook_allowed_domains),
            allowed_networks=networks(self.webhook_allowed_networks),
            refused_networks=networks(self.webhook_refused_networks),
            allowed_ports=ports(self.webhook_allowed_ports),
            length=Limits().callback_url_length,
        )

    @property
    def webhook_schedule(self) -> tuple[timedelta, ...]:
        """The pause before each attempt to send a webhook, as configured."""
        return pauses(self.webhook_schedule_seconds)
