"""What missions and the merge queue of a branch say to each other."""

from datetime import datetime

from models.contracts.pipeline import Payload


class QueueRef(Payload):
    """Names a branch's merge queue."""

    repository_id: str
    branch: str
    workspace_id: str = ""


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

    number: int
    token: int


class SlotAsk(Payload):
    """Hands a request to the queue that it is for. Who asks `again` may have the slot, and was not told."""

    queue: QueueRef
    request: SlotRequest
    again: bool = False


class SlotReturn(Payload):
    """Gives the slot back. Who only `waited` for it must leave the queue, which is told of it in any case."""

    queue: QueueRef
    release: SlotRelease
    waited: bool = False


class SlotOffer(Payload):
    """The queue's next step: the slot goes `to` who is next, or to nobody; those who `left` hold it no more."""

    queue: QueueRef
    to: SlotRequest | None
    left: tuple[SlotRelease, ...] = ()


class SlotOutcome(Payload):
    """What became of an offer: accepted, or its mission is `gone`, or the slot is `held` by another."""

    gone: bool = False
    held: SlotRelease | None = None


class MergeQueueState(Payload):
    """All the queue carries over continue-as-new, and what its snapshot shows.

    `holder` holds the slot as far as the queue knows; those who `left` may still stand as its holder in Postgres.
    """

    queue: QueueRef
    holder: SlotRequest | SlotRelease | None = None
    waiting: tuple[SlotRequest, ...] = ()
    left: tuple[SlotRelease, ...] = ()

    def enqueue(self, request: SlotRequest) -> "MergeQueueState":
        """Add a request: asking again changes nothing, and a new request takes the place of the same run's last."""
        if request in (self.holder, *self.waiting):
            return self
        freed = self.release(request)
        return freed.model_copy(update={"waiting": (*freed.waiting, request)})

    def offer(self) -> SlotOffer:
        """Offer the free slot to the most severe, then the oldest."""
        order = sorted(self.waiting, key=lambda request: (request.rank, request.created_at, request.workflow_id))
        return SlotOffer(queue=self.queue, to=next(iter(order), None), left=self.left)

    def offered(self, offer: SlotOffer, outcome: SlotOutcome) -> "MergeQueueState":
        """Take note of what became of an offer; whom it was for may have left meanwhile."""
        left = tuple(one for one in self.left if one not in offer.left)
        waiting = tuple(request for request in self.waiting if request != offer.to)
        state = self.model_copy(update={"left": left})
        if outcome.held is not None:
            return state.model_copy(update={"holder": outcome.held})
        if offer.to is None or outcome.gone:
            return state.model_copy(update={"waiting": waiting})
        if offer.to not in self.waiting:
            return state.model_copy(update={"left": (*left, _plain(offer.to))})
        return state.model_copy(update={"holder": offer.to, "waiting": waiting})

    def release(self, leaving: SlotRelease) -> "MergeQueueState":
        """Free the slot if `leaving` holds it, and forget its requests."""
        waiting = tuple(request for request in self.waiting if not leaving.same(request))
        if not leaving.same(self.holder):
            return self.model_copy(update={"waiting": waiting})
        return self.model_copy(update={"holder": None, "waiting": waiting, "left": (*self.left, _plain(leaving))})

    def look_again(self) -> "MergeQueueState":
        """Forget who holds the slot: its release may have been lost, so the next offer asks Postgres."""
        return self.model_copy(update={"holder": None})


def _plain(request: SlotRelease) -> SlotRelease:
    return SlotRelease(workflow_id=request.workflow_id, run_id=request.run_id)
