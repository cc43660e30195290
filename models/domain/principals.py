"""Who may call: humans by role, agents and services each gated apart (requirements section 3)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from models.domain.agents import AgentStatus
from models.domain.errors import Conflict, NotPermitted


class Kind(StrEnum):
    """What a principal is."""

    HUMAN = "human"
    AGENT = "agent"
    SERVICE = "service"


class Role(StrEnum):
    """What a human may do; each role includes those before it. A platform admin may do it in every workspace."""

    OBSERVER = "observer"
    MEMBER = "member"
    OPERATOR = "operator"
    ADMIN = "admin"
    PLATFORM_ADMIN = "platform_admin"

    def includes(self, least: "Role") -> bool:
        """Whether this role may do what `least` may."""
        return list(Role).index(self) >= list(Role).index(least)


MAX_FOUNDED = 20
"""Workspaces that come of one human, who may have the least of roles."""
ADMINS = (Role.ADMIN, Role.PLATFORM_ADMIN)


def leaves_admins(before: Sequence[str], after: Sequence[str]) -> bool:
    """Whether these roles of keys leave somebody who may do everything, and a platform admin where there was one."""
    return not before or (bool(after) and (Role.PLATFORM_ADMIN not in before or Role.PLATFORM_ADMIN in after))


def require_admins_left(keys: Sequence[tuple[str, str]], name: str, role: Role | None) -> None:
    """Refuse what would leave a workspace without an admin, if this principal's role became that, or none.

    `keys`: of those that may do everything, for good, whose each is, and its role.

    Raises:
        Conflict: `last_admin`.
    """
    others = [known for owner, known in keys if owner != name]
    own = [role.value for owner, _ in keys if owner == name and role in ADMINS and role]
    if not leaves_admins([known for _, known in keys], others + own):
        told = f"{name!r} is the last {last_of(others + own)} with a key that may do everything and never expires"
        raise Conflict("last_admin", f"{told}; give another one that role and such a key first")


def last_of(left: Sequence[str]) -> str:
    """Name the kind of admin that is gone where these roles of keys are left."""
    return "platform admin" if Role.ADMIN in left else "admin of the workspace"


NOUNS = (
    "activity",
    "agents",
    "alerts",
    "audit",
    "auth",
    "budgets",
    "capa",
    "decisions",
    "events",
    "keys",
    "memory",
    "metrics",
    "missions",
    "policy",
    "principals",
    "queue",
    "repositories",
    "runs",
    "stages",
    "status",
    "workspaces",
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
    """The owner of a key, in the one workspace that the key opens. `role` is a human's; `scopes` narrow the key.

    `rate` is the key's own number of requests a minute, where it has one; `lineage` is what the key and those it was
    rotated from count as; `status` is an agent's; `home` is a visiting platform admin's.
    """

    workspace_id: str
    name: str
    kind: Kind
    role: Role | None
    key_id: str
    scopes: tuple[str, ...] = ()
    rate: int | None = None
    lineage: str = ""
    status: AgentStatus | None = None
    home: str = ""

    @property
    def known_as(self) -> str:
        """The name that facts record. A visitor's says where it comes from: its host may have the same name."""
        return f"{self.home}/{self.name}" if self.home else self.name

    @property
    def own_agent(self) -> str | None:
        """The agent that it is, which sees and does what is its own only; None for people and services."""
        return self.name if self.kind is Kind.AGENT else None

    @property
    def is_admin(self) -> bool:
        """Whether it may do all in the workspace."""
        return self.role in ADMINS

    @property
    def opens_all(self) -> bool:
        """Whether it may enter every workspace, as a visitor where it is not at home."""
        return self.role is Role.PLATFORM_ADMIN

    def opens(self, workspace_id: str) -> bool:
        """Whether it may enter a workspace; to whom it may not, the workspace is not there."""
        return self.opens_all or workspace_id == self.workspace_id

    def visiting(self, workspace_id: str) -> "Principal":
        """The same platform admin, in another workspace than its own."""
        home = self.home or self.workspace_id
        return replace(self, workspace_id=workspace_id, home="" if home == workspace_id else home)

    def require_own_agent(self, name: str) -> None:
        """Refuse to let an agent act for another one.

        Raises:
            NotPermitted: `not_your_agent`.
        """
        if self.own_agent not in (None, name):
            raise NotPermitted("not_your_agent", f"this key is {self.name!r}'s, and acts for no other agent")

    def require_power_over(self, role: str) -> None:
        """Refuse to let anyone make, change or end more than it is itself.

        Raises:
            NotPermitted: the role is above its own.
        """
        if role == Role.PLATFORM_ADMIN and self.role is not Role.PLATFORM_ADMIN:
            raise NotPermitted("platform_admins_only", "this concerns a platform admin: only another one may do it")

    def require_rate_over(self, rate: int | None, usual: int) -> None:
        """Refuse to let the admin of one workspace take more of what all share than its kind has.

        Raises:
            NotPermitted: a key with more than the usual requests a minute.
        """
        if rate is not None and rate > usual and self.role is not Role.PLATFORM_ADMIN:
            raise NotPermitted(
                "platform_admins_only", f"more than {usual} requests a minute gives a platform admin only"
            )

    def require_scopes_over(self, scopes: Collection[str]) -> None:
        """Refuse to let a narrowed key give what it has not.

        Raises:
            NotPermitted: the scopes are not within its own.
        """
        if self.scopes and not (scopes and set(scopes) <= set(self.scopes)):
            raise NotPermitted("out_of_scope", f"this key is only for {', '.join(self.scopes)}, and gives nobody more")


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
