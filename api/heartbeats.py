"""Hearing agents: heartbeats of one that come while one of it is being written share the next write.

So an agent that sends very many at once holds one connection, and neither waits for its own row nor lets others wait.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy.ext.asyncio import AsyncSession

from api.batches import Batches
from models.domain.agents import AgentStatus
from models.domain.errors import MissionControlError
from models.domain.principals import Principal
from models.store import agents
from models.store.database import Database
from models.store.events import Actor

MAX_BATCH = 200
"""Heartbeats per write: that many may each name another agent, which is looked up to be refused."""


@dataclass(frozen=True)
class Beat:
    """That an agent lives, as its own key says in a request."""

    caller: Principal
    agent: str
    actor: Actor


class Heartbeats:
    """Writes heartbeats; one transaction per agent at a time."""

    def __init__(self, db: Database) -> None:
        self._batches = Batches[Beat, AgentStatus](partial(_hear, db), MAX_BATCH)

    async def hear(self, beat: Beat) -> AgentStatus:
        """Note one; it is written when this returns what the agent is to be.

        Raises:
            NotFound: `agent_not_found`.
            NotPermitted: `not_your_agent`.
        """
        return await self._batches.ask(f"{beat.caller.workspace_id}/{beat.caller.name}", beat)


async def _hear(db: Database, _: str, beats: Sequence[Beat]) -> Sequence[AgentStatus | MissionControlError]:
    named = {beat.agent: beat for beat in beats}
    async with db.workspace(beats[0].caller.workspace_id) as session:
        heard = {name: await _heard(session, beat) for name, beat in named.items()}
    return [heard[beat.agent] for beat in beats]


async def _heard(session: AsyncSession, beat: Beat) -> AgentStatus | MissionControlError:
    workspace_id = beat.caller.workspace_id
    try:
        beat.caller.require_own_agent((await agents.require(session, workspace_id, beat.agent)).name)
    except MissionControlError as refusal:
        return refusal
    heard = await agents.hear(session, workspace_id, beat.agent, beat.actor)
    return AgentStatus(heard.status or "")
