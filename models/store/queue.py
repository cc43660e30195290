"""Which mission an agent does next (MISS-21, MISS-22, V-02)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.contracts.missions import TrustRequirements
from models.domain.agents import require_at_work, too_many_claims
from models.domain.limits import exceeded
from models.domain.refusals import missing
from models.domain.roles import shown_by
from models.domain.trust import require_access
from models.store.database import Database
from models.store.events import Actor
from models.store.queue_statements import CLAIM, PEEK, SPENT, WHY

Package = dict[str, Any]
"""Of a mission, as `packages` shows it."""


@dataclass(frozen=True)
class Wish:
    """An agent asks for a mission, in one of these roles; it holds at most `most` that it has not begun."""

    name: str
    roles: Sequence[str]
    most: int


@dataclass(frozen=True)
class Claim:
    """The agent wants to have it, and not only to look."""

    wish: Wish
    actor: Actor


async def claim_all(db: Database, workspace_id: str, claims: Sequence[Claim]) -> list[Package | None]:
    """Assign to each, one after the other, the most severe, then oldest mission that it may take; None: there is none.

    An agent must be alive and active. A mission another caller is claiming at this moment is passed over, so no two
    ever get the same one. A mission that was filed for the agent or for its role is given out once, too.
    """
    steps = [(CLAIM, _asked(workspace_id, claim.wish) | _told(claim.actor)) for claim in claims]
    given = await db.together(workspace_id, *steps, has_events=True)
    return [rows[0] if rows else None for rows in given]


async def peek(db: Database, workspace_id: str, wish: Wish) -> Package | None:
    """Find what a claim would be given, and leave it there."""
    found = await db.alone(workspace_id, PEEK, _asked(workspace_id, wish))
    return found[0] if found else None


def _told(actor: Actor) -> dict[str, Any]:
    return {"actor": actor.name, "correlation_id": actor.correlation_id}


def _asked(workspace_id: str, wish: Wish) -> dict[str, Any]:
    """Give what the statements take: roles that are asked for, each with every word by which an agent has it."""
    pairs = [(role, word) for role in wish.roles for word in shown_by(role)]
    named, words = zip(*pairs, strict=True)
    who = {"workspace_id": workspace_id, "name": wish.name, "most": wish.most}
    return who | {"roles": list(named), "words": list(words)}


async def require_budget(db: Database, workspace_id: str, name: str) -> None:
    """Refuse an agent that has nothing left to spend; raises `Conflict`, with the limit."""
    if spent := await db.alone(workspace_id, SPENT, {"workspace_id": workspace_id, "name": name}):
        raise exceeded(spent[0])


async def require_fit(db: Database, workspace_id: str, wish: Wish) -> None:
    """Tell an agent that was offered nothing whether that is because of itself; return where it is not.

    Raises:
        NotFound: no such agent.
        Conflict: `agent_not_approved`, `agent_not_active`, `agent_stale`, `too_many_claims` or `budget_exceeded`.
        NotPermitted: `trust_too_low` or `role_not_allowed`, for what waits.
    """
    found = await db.alone(workspace_id, WHY, _asked(workspace_id, wish))
    if not found:
        raise missing("agent", wish.name)
    [agent] = found
    require_at_work(
        agent["name"], agent["agent_id"], agent["registration"], agent["status"], is_fresh=agent["is_fresh"]
    )
    if agent["is_full"]:
        raise too_many_claims(wish.name, wish.most)
    if agent["scope"] is not None:
        raise exceeded(agent)
    if agent["needs"] is not None:
        needs = TrustRequirements.model_validate(agent["needs"])
        require_access(agent["trust"], tuple(agent["capabilities"]), needs.required_trust_score, needs.allowed_roles)
