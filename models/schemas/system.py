"""Bodies of the probes of a process."""

from typing import Literal

from pydantic import BaseModel


class Alive(BaseModel):
    """The process runs."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """What works. Reads and decisions need the database only; commands to missions need Temporal too."""

    database: Literal["ok"] = "ok"
    migrations: str
    temporal: Literal["ok", "unavailable"]
