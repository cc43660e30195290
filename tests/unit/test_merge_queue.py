"""The rules of a branch's merge queue, without a server."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from models.contracts.merge_queue import MergeQueueState, SlotRelease, SlotRequest

NOON = datetime(2025, 1, 10, 12, tzinfo=UTC)


def request(name: str, number: int = 1, rank: int = 1, minutes: int = 0) -> SlotRequest:
    return SlotRequest(
        workflow_id=name, run_id="run", number=number, rank=rank, created_at=NOON + timedelta(minutes=minutes)
    )


def release(name: str) -> SlotRelease:
    return SlotRelease(workflow_id=name, run_id="run")


def queued(*requests: SlotRequest) -> MergeQueueState:
    state = MergeQueueState()
    for wanted in requests:
        state = state.enqueue(wanted)
    return state


def names(state: MergeQueueState) -> list[str]:
    return [wanted.workflow_id for wanted in state.waiting]


def test_the_more_severe_goes_first() -> None:
    state = queued(request("high", rank=1), request("critical", rank=0), request("low", rank=3)).grant_next()
    assert state.holder == request("critical", rank=0)
    assert names(state) == ["high", "low"]


def test_of_equals_the_older_goes_first() -> None:
    state = queued(request("young", minutes=5), request("old", minutes=1)).grant_next()
    assert state.holder is not None
    assert state.holder.workflow_id == "old"


def test_asking_again_changes_nothing() -> None:
    state = queued(request("a"), request("b"))
    assert state.enqueue(request("a")) == state
    held = state.grant_next()
    assert held.enqueue(request("a")) == held


def test_a_new_request_of_a_run_that_waits_replaces_its_last() -> None:
    state = queued(request("a"), request("b"), request("a", number=2))
    assert [wanted.number for wanted in state.waiting] == [1, 2]
    assert names(state) == ["b", "a"]


def test_a_new_request_of_the_holder_gives_the_slot_up() -> None:
    state = queued(request("a"), request("b")).grant_next().enqueue(request("a", number=2))
    assert (state.holder, names(state)) == (None, ["b", "a"])


def test_another_run_of_the_same_workflow_is_another() -> None:
    first, second = request("a"), request("a").model_copy(update={"run_id": "other"})
    assert not first.same(second)
    assert not first.same(None)


def test_leaving_the_queue_leaves_the_holder_alone() -> None:
    state = queued(request("a"), request("b")).grant_next().release(release("b"))
    assert state.holder == request("a")
    assert names(state) == []


def test_a_strangers_release_changes_nothing() -> None:
    state = queued(request("a"), request("b")).grant_next()
    assert state.release(release("c")) == state


Step = tuple[str, str, int]
steps = st.lists(st.tuples(st.sampled_from(["ask", "leave", "grant"]), st.sampled_from("abcde"), st.integers(0, 3)))


@given(steps)
def test_whatever_happens_nobody_is_twice_in_the_queue_and_tokens_grow(story: list[Step]) -> None:
    state, tokens = MergeQueueState(), [0]
    for act, name, rank in story:
        if act == "ask":
            state = state.enqueue(request(name, rank=rank))
        elif act == "leave":
            state = state.release(release(name))
        elif state.holder is None and state.waiting:
            state = state.grant_next()
            tokens.append(state.token)
        standing = names(state) + ([state.holder.workflow_id] if state.holder else [])
        assert len(standing) == len(set(standing))
    assert tokens == list(range(len(tokens)))
    assert MergeQueueState.model_validate_json(state.model_dump_json()) == state
