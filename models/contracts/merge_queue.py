"""What missions and the merge queue of a branch say to each other."""

from datetime import datetime

from models.contracts.pipeline import Payload


class QueueRef(Payload):
    """Names a branch's merge queue."""

    repository_id: str
    branch: str


class SlotRelease(Payload):
    """Gives the slot back, or withdraws a request that was not yet granted."""

    workflow_id: str
    run_id: str

    def same(self, other: "SlotRelease | None") -> bool:
        """Whether both speak for the same run."""
        return other is not None and (self.workflow_id, self.run_id) == (other.workflow_id, other.run_id)


class SlotRequest(SlotRelease):
    """Asks for the branch's merge slot. Lower `rank` (severity) first, then the older mission.

    `number` counts the requests of a run, so that a grant is never taken for the answer to a later one.
    """

    number: int
    rank: int
    created_at: datetime


class SlotGrant(Payload):
    """Hands out the slot. `token` grows with every grant: the fence refuses an older one."""

    queue_id: str
    number: int
    token: int


class SlotAsk(Payload):
    """Hands a request to the queue that it is for."""

    queue: QueueRef
    request: SlotRequest


class SlotReturn(Payload):
    """Hands a release to the queue that it is for."""

    queue: QueueRef
    release: SlotRelease


class SlotOffer(Payload):
    """Hands a grant to the mission that it is for."""

    holder: SlotRequest
    grant: SlotGrant


class MergeQueueState(Payload):
    """All the queue carries over continue-as-new, and what its snapshot shows."""

    token: int = 0
    holder: SlotRequest | None = None
    waiting: tuple[SlotRequest, ...] = ()

    def enqueue(self, request: SlotRequest) -> "MergeQueueState":
        """Add a request: asking again changes nothing, and a new request takes the place of the same run's last."""
        if request in (self.holder, *self.waiting):
            return self
        left = self.release(request)
        return left.model_copy(update={"waiting": (*left.waiting, request)})

    def grant_next(self) -> "MergeQueueState":
        """Give the free slot to the most severe, then the oldest, under a new token."""
        chosen = min(self.waiting, key=lambda request: (request.rank, request.created_at, request.workflow_id))
        waiting = tuple(request for request in self.waiting if request is not chosen)
        return MergeQueueState(token=self.token + 1, holder=chosen, waiting=waiting)

    def release(self, leaving: SlotRelease) -> "MergeQueueState":
        """Free the slot if `leaving` holds it, and forget its requests."""
        holder = None if leaving.same(self.holder) else self.holder
        waiting = tuple(request for request in self.waiting if not leaving.same(request))
        return MergeQueueState(token=self.token, holder=holder, waiting=waiting)
