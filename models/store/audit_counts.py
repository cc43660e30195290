"""How many rows each workspace has in the audit log: counted for checkpoints, proved in exports (system door)."""

from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from models.domain.audit_counts import count_leaf, count_proof, counts_of, counts_over
from models.domain.checkpoints import Checkpoint


async def lines(session: AsyncSession, size: int) -> tuple[str, ...]:
    """Give what the checkpoint of that size says of all workspaces."""
    counted = [row for row in await _counted(session, size) if row.rows]
    return (counts_over(_leaves(counted)).line,)


async def proof(session: AsyncSession, workspace_id: str, checkpoint: Checkpoint) -> dict[str, Any] | None:
    """Prove a workspace's count to who has the checkpoint; None where this says nothing of it.

    It speaks of so many workspaces, the first that came: those that came since are not among them.
    """
    counts = counts_of(checkpoint)
    counted = (await _counted(session, checkpoint.size))[: counts.workspaces] if counts else []
    for index, row in enumerate(counted):
        if row.workspace_id == workspace_id:
            hashes = count_proof(_leaves(counted), index)
            return {"rows": row.rows, "index": index, "salt": row.salt.hex(), "hashes": hashes}
    return None


async def _counted(session: AsyncSession, size: int) -> list[Any]:
    return list(await session.execute(_COUNTED, {"size": size}))


def _leaves(counted: list[Any]) -> list[bytes]:
    return [count_leaf(row.workspace_id, row.rows, row.salt) for row in counted]


# The number of a workspace's last leaf: one look into an index for each workspace.
_COUNTED = text(
    "SELECT w.workspace_id, w.salt, coalesce((SELECT l.seq FROM audit_leaf l WHERE l.workspace_id = w.workspace_id"
    " AND l.tree_index < :size ORDER BY l.tree_index DESC LIMIT 1), 0) AS rows"
    " FROM audit_workspace w ORDER BY w.number"
)
