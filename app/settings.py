"""Settings, from flags first and then from the environment (prefix `PRUNESCOPE_`)."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.domain.errors import InvalidInput

GIBIBYTE = 1 << 30
_TOKEN_VARIABLE = "PRUNESCOPE_TOKEN"


class Settings(BaseSettings):
    """What an operator can set. Paths are made absolute; nothing is created before `prepare()`.

    `processes`: how many children a worker may compute one analysis with; 0 for its share of cores.
    """

    model_config = SettingsConfigDict(env_prefix="PRUNESCOPE_", extra="ignore")

    data_dir: Path = Path("data")
    database_url: str = ""
    blob_url: str = ""
    token: str = ""
    executor: Literal["local", "ray"] = "local"
    max_upload_bytes: int = Field(default=4 * GIBIBYTE, gt=0)
    device: str = "auto"
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    allowed_hosts: list[str] = Field(default_factory=list)
    lease_seconds: float = Field(default=60.0, gt=0)
    processes: int = Field(default=0, ge=0, le=64)
    isolation: Literal["auto", "bubblewrap", "landlock", "rlimits"] = "auto"

    def model_post_init(self, context: object) -> None:
        self.data_dir = self.data_dir.expanduser().resolve()
        if not self.database_url:
            self.database_url = f"sqlite:///{self.data_dir / 'prunescope.db'}"
        if not self.blob_url:
            self.blob_url = (self.data_dir / "blobs").as_uri()

    def require_supported(self) -> None:
        """Raises InvalidInput for a setting that this version can't honour."""
        if self.executor != "local":
            raise InvalidInput(
                "The ray executor is not part of this version.", "Set PRUNESCOPE_EXECUTOR to local."
            )
        if self.device not in ("auto", "cpu"):
            raise InvalidInput(
                f"The device {self.device!r} can't be used: this version computes on the CPU.",
                "Set PRUNESCOPE_DEVICE to auto or cpu.",
            )

    @property
    def token_file(self) -> Path:
        return self.data_dir / "token"

    def child_environment(self) -> dict[str, str]:
        """This process's environment with these settings in it, for a child. Without the token."""
        package = Path(__file__).resolve().parents[1]
        paths = [str(package), os.environ.get("PYTHONPATH", "")]
        inherited = {name: value for name, value in os.environ.items() if name != _TOKEN_VARIABLE}
        return inherited | {
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "PRUNESCOPE_DATA_DIR": str(self.data_dir),
            "PRUNESCOPE_DATABASE_URL": self.database_url,
            "PRUNESCOPE_BLOB_URL": self.blob_url,
            "PRUNESCOPE_DEVICE": self.device,
            "PRUNESCOPE_EXECUTOR": self.executor,
            "PRUNESCOPE_LEASE_SECONDS": str(self.lease_seconds),
            "PRUNESCOPE_PROCESSES": str(self.processes),
        }

    def make_private(self) -> None:
        """Create the data directory; what this process writes is for its own user from here on.

        The folder is closed to others only when it is made here: an operator may have opened it.
        """
        os.umask(0o077)
        self.data_dir.mkdir(parents=True, exist_ok=True)

    def prepare(self) -> None:
        """Create the data directory and settle the token (made once, kept with mode 0600)."""
        self.make_private()
        if self.token:
            return
        try:
            descriptor = os.open(self.token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            self.token = self.token_file.read_text().strip()
        else:
            self.token = secrets.token_urlsafe(32)
            with os.fdopen(descriptor, "w") as file:
                file.write(self.token + "\n")
