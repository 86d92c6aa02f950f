"""Settings from the environment and from one file, the same way in every service.

Every name is prefixed `KUBELORE_` in the environment. `KUBELORE_CONFIG` may name
a JSON or YAML file; the environment wins over it, and defaults come last.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import yaml
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict


class CommonSettings(BaseSettings):
    """What every service needs; a service's own settings inherit from it."""

    model_config = SettingsConfigDict(env_prefix="KUBELORE_", extra="ignore")

    nats_url: str = Field(
        default="nats://127.0.0.1:4222",
        description="Servers of the bus, comma separated, without credentials.",
    )
    nats_user: str = Field(default="", description="User of this service on the bus.")
    nats_password: SecretStr = Field(default=SecretStr(""), description="Password of that user.")
    mongo_url: SecretStr = Field(
        default=SecretStr("mongodb://127.0.0.1:27017"), description="MongoDB connection string."
    )
    mongo_database: str = Field(default="kubelore", description="Database that holds Kubelore's collections.")
    blob_url: str = Field(
        default="", description="Blob store: file:///path, or s3://bucket with the AWS_* variables."
    )
    keyring_dir: Path = Field(
        default=Path("keyring"), description="Folder with one keyring file per purpose."
    )
    replica: str = Field(default="", description="Id of this replica; made at start when empty.")
    allow_private_addresses: bool = Field(
        default=False, description="Whether API servers on loopback and private addresses may be added."
    )
    allow_insecure_tls: bool = Field(
        default=False, description="Whether insecure-skip-tls-verify is accepted."
    )
    allowed_exec_commands: list[str] = Field(
        default_factory=list,
        description="Command lines of credential plugins that a kubeconfig may name, each with the program's "
        "absolute path; a word `*` stands for one plain word.",
    )
    exec_environment: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="The whole environment of credential plugins, as a JSON object; nothing else is passed on.",
    )
    log_format: str = Field(default="json", description="json or console.")
    log_level: str = Field(default="info", description="debug, info, warning or error.")
    otlp_endpoint: str = Field(
        default="", description="OTLP/HTTP endpoint for traces and metrics; none when empty."
    )

    @field_validator("allowed_exec_commands")
    @classmethod
    def _full_command_lines(cls, commands: list[str]) -> list[str]:
        """A command that is looked up on a PATH is whatever lies there first, so only absolute paths are taken."""
        for command in commands:
            try:
                words = shlex.split(command)
            except ValueError as error:
                raise ValueError(f"{command!r} cannot be split into words: {error}") from error
            if not words or not words[0].startswith("/"):
                raise ValueError(
                    f"{command!r} does not begin with an absolute path: write the program's whole path, "
                    "such as /usr/local/bin/aws, and every argument"
                )
        return commands

    @field_validator("exec_environment")
    @classmethod
    def _names_of_variables(cls, variables: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, value in variables.items():
            if not name or "=" in name or "\0" in name or "\0" in value.get_secret_value():
                raise ValueError(f"{name!r} cannot be an environment variable")
        return variables

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic names the parameters
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic names the parameters
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order: arguments, environment, the file that KUBELORE_CONFIG names, defaults."""
        sources: tuple[PydanticBaseSettingsSource, ...] = (init_settings, env_settings)
        path = os.environ.get("KUBELORE_CONFIG")
        if path:
            values = yaml.safe_load(Path(path).read_text()) or {}
            sources = (*sources, InitSettingsSource(settings_cls, values))
        return sources
