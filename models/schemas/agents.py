"""Bodies of the agent routes."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from models.domain.agents import STALE_SECONDS, AgentStatus, Registration, Silence
from models.domain.budgets import Scope
from models.domain.money import Dollars, Usd
from models.domain.names import seen_name
from models.domain.policy import Glob, Level
from models.schemas.envelope import Body, Said
from models.schemas.names import CleanName, NewName


def _endpoint(url: str) -> str:
    """Take an address that may be shown to everyone of the workspace."""
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or not url.isprintable() or " " in url:
        raise ValueError("an endpoint is an http or https URL, such as https://agents.example.org/probe")
    if "@" in parts.netloc:
        raise ValueError("an endpoint holds no user and no password: everyone of the workspace sees it")
    return url


Endpoint = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_endpoint)]
Capabilities = Annotated[tuple[CleanName, ...], Field(max_length=100)]
Tools = Annotated[
    tuple[Annotated[Glob, AfterValidator(seen_name)], ...],
    Field(max_length=500, description="The tools it may call, as patterns such as `git_*`; [] is none."),
]

CAPS = {Scope.AGENT_DAY: "daily_cap_usd", Scope.RUN: "run_cap_usd"}
"""Fields of agents, by their limits (BUDG-12)."""


class AgentRegister(Body):
    """Asks to be let in. `workspace` is for those without a key: they may name one, else it is the default one."""

    name: NewName
    endpoint: Endpoint
    capabilities: Capabilities = ()
    workspace: Annotated[str | None, Field(min_length=1, max_length=63)] = None


class AgentDecide(Body):
    """Why a registration is approved or rejected."""

    explanation: Said


class AgentChange(Body):
    """Changes what is known of an agent; what is left out stays. `level`, `tools`, the caps and more capabilities than
    were approved are for admins.

    A cap in dollars holds instead of its level's; null gives it the level's back.
    """

    endpoint: Endpoint | None = None
    capabilities: Capabilities | None = None
    level: Level | None = None
    tools: Tools | None = None
    daily_cap_usd: Usd | None = None
    run_cap_usd: Usd | None = None

    @property
    def caps(self) -> dict[Scope, Decimal | None]:
        """The caps that are said, by their limits."""
        return {scope: getattr(self, name) for scope, name in CAPS.items() if name in self.model_fields_set}


class AgentView(BaseModel):
    """An agent, from its registration on."""

    model_config = ConfigDict(from_attributes=True)

    agent_id: str
    name: str
    registration: Registration
    status: AgentStatus | None = Field(description="What it may do; null until it is approved.")
    level: Level
    endpoint: str | None
    capabilities: tuple[str, ...]
    tools: tuple[str, ...]
    requested_by: str
    created_at: datetime
    decided_by: str | None
    decided_at: datetime | None
    last_heartbeat_at: datetime | None
    silence: Silence
    daily_cap_usd: Dollars | None = Field(default=None, description="Its own, or its level's (BUDG-12).")
    run_cap_usd: Dollars | None = None


class AgentShown(AgentView):
    """An agent; its registrant finds the new key here, once."""

    key: str | None = None


class AgentRegistered(AgentView):
    """A new registration, with the token by which its registrant asks for the key; shown this once."""

    registration_token: str | None = Field(description="Null in the answer to a repetition: it is kept nowhere.")


class HeartbeatView(BaseModel):
    """That the agent was heard, and what it is to be."""

    status: AgentStatus
    stale_after_seconds: int = STALE_SECONDS
