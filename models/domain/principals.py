"""Who may call: humans by role, agents and services each gated apart (requirements section 3)."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a principal is."""

    HUMAN = "human"
    AGENT = "agent"
    SERVICE = "service"


class Role(StrEnum):
    """What a human may do; each role includes those before it."""

    OBSERVER = "observer"
    MEMBER = "member"
    OPERATOR = "operator"
    ADMIN = "admin"

    def includes(self, least: "Role") -> bool:
        """Whether this role may do what `least` may."""
        return list(Role).index(self) >= list(Role).index(least)


NOUNS = (
    "auth",
    "budgets",
    "capa",
    "decisions",
    "events",
    "keys",
    "metrics",
    "missions",
    "policy",
    "queue",
    "repositories",
    "runs",
    "stages",
    "status",
)
"""What the API's routes are about, and what a key may be narrowed to."""

READ = "read"
SCOPES = (READ, *NOUNS, *(f"{noun}:{READ}" for noun in NOUNS))


def within(scopes: Collection[str], noun: str, *, reads: bool) -> bool:
    """Whether a key's scopes include a route: `missions` all of a noun's, `missions:read` and `read` those that read.

    A key without scopes may do all that its owner may.
    """
    wanted = {noun, READ, f"{noun}:{READ}"} if reads else {noun}
    return not scopes or not wanted.isdisjoint(scopes)


@dataclass(frozen=True)
class Principal:
    """The owner of a key, in the one workspace that the key opens. `role` is a human's; `scopes` narrow the key."""

    workspace_id: str
    name: str
    kind: Kind
    role: Role | None
    key_id: str
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Callers:
    """Who may call a route: humans from `humans` upwards, and agents or services where it says so."""

    humans: Role | None = None
    agents: bool = False
    services: bool = False

    def admit(self, principal: Principal) -> bool:
        """Whether the principal is one of them."""
        if principal.kind is Kind.AGENT:
            return self.agents
        if principal.kind is Kind.SERVICE:
            return self.services
        return self.humans is not None and principal.role is not None and principal.role.includes(self.humans)

    def __str__(self) -> str:
        named = [f"a key of role {self.humans.value} or higher"] if self.humans else []
        named += ["an agent's key"] if self.agents else []
        named += ["a service's key"] if self.services else []
        return ", or ".join(named)
