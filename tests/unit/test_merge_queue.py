"""The rules of a branch's merge queue, without a server."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from models.contracts.merge_queue import MergeQueueState, QueueRef, SlotOffer, SlotOutcome, SlotRelease, SlotRequest

NOON = datetime(2025, 1, 10, 12, tzinfo=UTC)
QUEUE = QueueRef(workspace_id="w", repository_id="r", branch="main")


def request(name: str, number: int = 1, rank: int = 1, minutes: int = 0) -> SlotRequest:
    return SlotRequest(
        workflow_id=name, run_id="run", number=number, rank=rank, created_at=NOON + timedelta(minutes=minutes)
    )


def release(name: str) -> SlotRelease:
    return SlotRelease(workflow_id=name, run_id="run")


def queued(*requests: SlotRequest) -> MergeQueueState:
    state = MergeQueueState(queue=QUEUE)
    for wanted in requests:
        state = state.enqueue(wanted)
    return state


def granted(state: MergeQueueState) -> MergeQueueState:
    """The queue after the next one took the slot."""
    return state.offered(state.offer(), SlotOutcome())


def names(state: MergeQueueState) -> list[str]:
    return [wanted.workflow_id for wanted in state.waiting]


def test_the_more_severe_goes_first() -> None:
    state = granted(queued(request("high", rank=1), request("critical", rank=0), request("low", rank=3)))
    assert state.holder == request("critical", rank=0)
    assert names(state) == ["high", "low"]


def test_of_equals_the_older_goes_first() -> None:
    state = granted(queued(request("young", minutes=5), request("old", minutes=1)))
    assert state.holder is not None
    assert state.holder.workflow_id == "old"


def test_asking_again_changes_nothing() -> None:
    state = queued(request("a"), request("b"))
    assert state.enqueue(request("a")) == state
    held = granted(state)
    assert held.enqueue(request("a")) == held


def test_a_new_request_of_a_run_that_waits_replaces_its_last() -> None:
    state = queued(request("a"), request("b"), request("a", number=2))
    assert [wanted.number for wanted in state.waiting] == [1, 2]
    assert names(state) == ["b", "a"]


def test_a_new_request_of_the_holder_gives_the_slot_up() -> None:
    state = granted(queued(request("a"), request("b"))).enqueue(request("a", number=2))
    assert (state.holder, names(state)) == (None, ["b", "a"])


def test_another_run_of_the_same_workflow_is_another() -> None:
    first, second = request("a"), request("a").model_copy(update={"run_id": "other"})
    assert not first.same(second)
    assert not first.same(None)


def test_leaving_the_queue_leaves_the_holder_alone() -> None:
    state = granted(queued(request("a"), request("b"))).release(release("b"))
    assert state.holder == request("a")
    assert names(state) == []


def test_a_strangers_release_changes_nothing() -> None:
    state = granted(queued(request("a"), request("b")))
    assert state.release(release("c")) == state


class TestOffers:
    def test_a_slot_that_another_holds_keeps_the_order(self) -> None:
        state = queued(request("a"), request("b"))
        busy = state.offered(state.offer(), SlotOutcome(held=release("other")))
        assert (busy.holder, names(busy)) == (release("other"), ["a", "b"])
        assert busy.look_again().offer().to == request("a")

    def test_a_mission_that_is_gone_is_passed_over(self) -> None:
        state = queued(request("a"), request("b"))
        assert names(state.offered(state.offer(), SlotOutcome(gone=True))) == ["b"]

    def test_who_left_while_it_was_offered_does_not_hold_it(self) -> None:
        state = queued(request("a"), request("b"))
        offer = state.offer()
        left = state.release(release("a")).offered(offer, SlotOutcome())
        assert (left.holder, left.left, names(left)) == (None, (release("a"),), ["b"])

    def test_who_left_is_named_once(self) -> None:
        state = granted(queued(request("a"))).release(release("a"))
        assert state.offer() == SlotOffer(queue=QUEUE, to=None, left=(release("a"),))
        assert granted(state) == MergeQueueState(queue=QUEUE)


Step = tuple[str, str, int]
steps = st.lists(st.tuples(st.sampled_from(["ask", "leave", "offer"]), st.sampled_from("abcde"), st.integers(0, 3)))


@given(steps)
def test_whatever_happens_nobody_is_twice_in_the_queue(story: list[Step]) -> None:
    state = MergeQueueState(queue=QUEUE)
    for act, name, rank in story:
        if act == "ask":
            state = state.enqueue(request(name, rank=rank))
        elif act == "leave":
            state = state.release(release(name))
        elif state.holder is None:
            state = granted(state)
            assert state.left == ()
        standing = names(state) + ([state.holder.workflow_id] if state.holder else [])
        assert len(standing) == len(set(standing))
    assert MergeQueueState.model_validate_json(state.model_dump_json()) == state
