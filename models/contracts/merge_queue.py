"""What missions and the merge queue of a branch say to each other."""

from datetime import datetime

from models.contracts.pipeline import Payload


class SlotRequest(Payload):
    """Asks for the branch's merge slot. Lower `rank` (severity) first, then the older mission."""

    workflow_id: str
    run_id: str
    rank: int
    created_at: datetime


class SlotRelease(Payload):
    """Gives the slot back, or withdraws a request that was not yet granted."""

    workflow_id: str
    run_id: str


class SlotGrant(Payload):
    """Hands out the slot. `token` grows with every grant: the fence refuses an older one."""

    queue_id: str
    token: int


class MergeQueueState(Payload):
    """All the queue carries over continue-as-new, and what its snapshot shows."""

    token: int = 0
    holder: SlotRequest | None = None
    waiting: tuple[SlotRequest, ...] = ()
