"""What a watcher may see of what happens: agents see of questions to people only their own (requirements section 3)."""

from collections.abc import Sequence

from api.sse import Frame, Show, whole
from models.domain.decisions import QUESTION, shown_to_agent
from models.domain.principals import Principal
from models.store import decisions
from models.store.database import Database


def discretion(db: Database, watcher: Principal) -> Show:
    """Give what leaves out of a stream that which its watcher may not see."""
    agent, workspace_id = watcher.own_agent, watcher.workspace_id
    if agent is None:
        return whole

    async def show(frames: Sequence[Frame]) -> list[Frame]:
        readable: set[str] = set()
        if names := {frame.event.subject.id for frame in frames if frame.event.subject.kind == QUESTION}:
            async with db.workspace(workspace_id) as session:
                readable = await decisions.readable(session, workspace_id, names, agent)
        shown = ((frame, shown_to_agent(frame.event, readable)) for frame in frames)
        return [frame if event is frame.event else Frame.of(frame.place, event) for frame, event in shown if event]

    return show
