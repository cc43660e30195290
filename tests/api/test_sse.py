"""The event stream: nothing lost, nothing twice, in order, each team its own, and nobody slows anybody."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

import httpx2
import pytest
from sqlalchemy import text

from activities.workbench.signing import ServiceKey
from api.sse import MAX_WAITING, PIECE_BYTES, Feed, Stream, Wanted
from models.domain.events import EventType
from models.domain.stages import StageName, StageStatus
from models.settings import Settings
from models.store import events
from models.store.database import Database
from models.store.events import BEGINNING, Place
from tests.fixtures.api import Caller, Team, served
from tests.fixtures.audit import act
from tests.fixtures.git_repos import Repo
from tests.fixtures.missions import filed, repo
from tests.fixtures.stages import Recorder, service_key
from tests.fixtures.waiting import until
from tests.fixtures.watching import PATIENCE, append, tell, watching

__all__ = ["repo", "service_key"]


@pytest.fixture
async def feed(db: Database) -> AsyncIterator[Feed]:
    """A feed without a server around it."""
    made = Feed(db, heartbeat=0.1)
    made.open()
    await made.ready()
    yield made
    await made.close()


def subjects(data: bytes) -> list[str]:
    """What the events of a piece of stream are about."""
    lines = [line for line in data.decode().splitlines() if line.startswith("data: ")]
    return [json.loads(line[6:])["subject"]["id"] for line in lines]


async def read(stream: Stream, count: int) -> list[str]:
    """What the first `count` events of a stream are about."""
    found: list[str] = []
    async with asyncio.timeout(PATIENCE):
        async for chunk in stream.chunks():
            found += subjects(chunk)
            if len(found) >= count:
                break
    return found


class TestWatching:
    async def test_live(self, address: str, team: Team) -> None:
        body = {"type": "subsystem.error", "subject": {"kind": "subsystem", "id": "billing"}, "data": {"n": 1}}
        async with watching(address, team.observer) as watch, httpx2.AsyncClient() as service:
            headers = {"X-API-Key": team.service, "X-Request-Id": "chain-9"}
            posted = await service.post(f"{address}/api/v1/events", json=body, headers=headers)
            (event,) = await watch.take(1)
        assert (event.id, event.event) == (posted.json()["data"]["id"], "subsystem.error")
        told = json.loads(event.data)
        assert told.pop("occurred_at")
        assert told == {
            **body,
            "id": event.id,
            "workspace_id": team.workspace_id,
            "correlation_id": "chain-9",
            "actor": "service",
        }

    async def test_reconnecting_brings_exactly_what_was_missed(self, address: str, team: Team, db: Database) -> None:
        async with watching(address, team.agent) as watch:
            await tell(db, team.workspace_id, "seen")
            (seen,) = await watch.take(1)
        await tell(db, team.workspace_id, "1", "2")
        for name in ("3", "4", "5"):
            await tell(db, team.workspace_id, name)
        async with watching(address, team.agent, last_id=seen.id) as watch:
            assert await watch.subjects(5) == ["1", "2", "3", "4", "5"]
            await tell(db, team.workspace_id, "6")
            assert await watch.subjects(1) == ["6"]

    async def test_after_is_for_clients_that_cannot_send_headers(self, address: str, team: Team, db: Database) -> None:
        await tell(db, team.workspace_id, "1", "2")
        async with watching(address, team.observer, after="0-0-0") as watch:
            first, second = await watch.take(2)
        async with watching(address, team.observer, after=first.id) as watch:
            assert (await watch.take(1))[0].id == second.id

    @pytest.mark.parametrize(
        ("query", "wanted"),
        [
            ({"type": "mission.*"}, ["a", "b"]),
            ({"type": "mission.merged,stage.*"}, ["b", "c"]),
            ({"type": "stage.passed"}, ["c"]),
            ({"subject": "b"}, ["b"]),
            ({"type": "mission.*", "subject": "a"}, ["a"]),
        ],
    )
    async def test_filters_of_past_and_present(
        self, address: str, team: Team, db: Database, query: dict[str, str], wanted: list[str]
    ) -> None:
        async def round_of_events() -> None:
            await tell(db, team.workspace_id, "a", kind=EventType.MISSION_CREATED)
            await tell(db, team.workspace_id, "b", kind=EventType.MISSION_MERGED)
            await tell(db, team.workspace_id, "c", kind=EventType.STAGE_PASSED)

        await round_of_events()
        async with watching(address, team.observer, after="0-0-0", **query) as watch:
            assert await watch.subjects(len(wanted)) == wanted
            await round_of_events()
            assert await watch.subjects(len(wanted)) == wanted

    async def test_the_life_of_agents_alone(self, address: str, team: Team, db: Database) -> None:
        of_agents = [kind for kind in EventType if kind.value.startswith("agent.")]
        async with watching(address, team.observer, type="agent.*") as watch:
            for kind in EventType:
                await tell(db, team.workspace_id, kind.value, kind=kind)
            found = [
                (event.event, json.loads(event.data)["subject"]["id"]) for event in await watch.take(len(of_agents))
            ]
            await tell(db, team.workspace_id, "the end", kind=EventType.AGENT_CHANGED)
            assert await watch.subjects(1) == ["the end"]
        assert found == [(kind.value, kind.value) for kind in of_agents]

    async def test_within_a_second_of_its_report(self, address: str, team: Team) -> None:
        body = {"type": "subsystem.report", "subject": {"kind": "subsystem", "id": "billing"}}
        async with watching(address, team.observer) as watch, httpx2.AsyncClient() as service:
            for _ in range(5):
                await service.post(f"{address}/api/v1/events", json=body, headers={"X-API-Key": team.service})
                posted = time.monotonic()
                await watch.take(1)
                assert time.monotonic() - posted < 1

    async def test_why_something_failed(
        self, address: str, team: Team, db: Database, api: httpx2.AsyncClient, repo: Repo, service_key: ServiceKey
    ) -> None:
        mission = (await filed(api, repo))["mission_id"]
        recorder = Recorder(db, team.workspace_id, service_key)
        async with watching(address, team.observer, subject=mission, type="stage.*") as watch:
            record = await recorder.begin(mission, StageName.RUN_TESTS)
            await recorder.end(record, StageStatus.FAILED, reason="1 of 7 tests failed: calc::adds")
            started, failed = await watch.take(2)
        assert (started.event, failed.event) == ("stage.started", "stage.failed")
        assert json.loads(failed.data)["data"]["reason"] == "1 of 7 tests failed: calc::adds"

    async def test_each_team_sees_its_own(self, address: str, team: Team, other_team: Team, db: Database) -> None:
        await tell(db, other_team.workspace_id, "theirs, before")
        async with watching(address, team.admin, after="0-0-0") as watch:
            await tell(db, other_team.workspace_id, "theirs")
            await tell(db, team.workspace_id, "ours")
            assert await watch.subjects(1) == ["ours"]

    async def test_a_browser_watches_with_its_cookie(self, address: str, team: Team, db: Database) -> None:
        async with httpx2.AsyncClient(timeout=PATIENCE) as browser:
            await browser.post(f"{address}/api/v1/auth/session", json={"key": team.observer})
            await tell(db, team.workspace_id, "x")
            url = f"{address}/api/v1/events?after=0-0-0&subject=x"
            async with browser.stream("GET", url) as response, asyncio.timeout(PATIENCE):
                event = await anext(aiter(httpx2.EventSource(response)))
        assert json.loads(event.data)["subject"] == {"kind": "thing", "id": "x"}

    async def test_heartbeats_while_nothing_happens(self, address: str, team: Team) -> None:
        async with (
            httpx2.AsyncClient(headers={"X-API-Key": team.observer}) as client,
            client.stream("GET", f"{address}/api/v1/events") as response,
        ):
            assert response.headers["content-type"].startswith("text/event-stream")
            assert response.headers["cache-control"] == "no-store"
            lines = response.aiter_lines()
            got = [line async for line, _ in zip_first(lines, 6)]
        assert got == [": open", "", ": heartbeat", "", ": heartbeat", ""]


async def zip_first(lines: AsyncIterator[str], count: int) -> AsyncIterator[tuple[str, int]]:
    """The first lines of an endless answer."""
    for number in range(count):
        yield await anext(lines), number


class TestRefusals:
    async def test_no_key(self, client: Caller) -> None:
        answer = await client(None).get("/api/v1/events")
        assert (answer.status_code, answer.headers["content-type"]) == (401, "application/json")

    @pytest.mark.parametrize(
        ("query", "headers", "code"),
        [
            ("type=mission.exploded", {}, "unknown_event_type"),
            ("type=", {}, None),
            ("after=yesterday", {}, "invalid_event_id"),
            ("after=1-2", {}, "invalid_event_id"),
            ("after=-1-2-3", {}, "invalid_event_id"),
            ("after=1-99999999999999999999-1", {}, "invalid_event_id"),
            ("", {"Last-Event-ID": "x"}, "invalid_event_id"),
            ("kind=x", {}, "unknown_parameter"),
        ],
    )
    async def test_wrong_questions(
        self, address: str, team: Team, query: str, headers: dict[str, str], code: str | None
    ) -> None:
        async with (
            httpx2.AsyncClient(headers={"X-API-Key": team.observer}) as client,
            client.stream("GET", f"{address}/api/v1/events?{query}", headers=headers) as answer,
        ):
            if code is None:
                assert answer.status_code == 200
            else:
                assert (answer.status_code, json.loads(await answer.aread())["error"]["code"]) == (422, code)


class TestOrder:
    async def test_a_transaction_that_commits_late_loses_nothing(self, address: str, team: Team, db: Database) -> None:
        async with watching(address, team.observer) as watch:
            async with db.workspace(team.workspace_id) as slow:
                await append(slow, team.workspace_id, "began first")
                for name in ("2", "3"):
                    await tell(db, team.workspace_id, name)
            assert await watch.subjects(3) == ["began first", "2", "3"]

    async def test_transactions_are_ordered_as_numbers(self, team: Team, db: Database) -> None:
        begin = Place(0, 998, 0)
        async with db.system() as session:
            for xid in (1000, 999, 10_000):
                await session.execute(text(SETTLED_EVENT), {"workspace": team.workspace_id, "xid": str(xid)})
            found = await events.settled_after(session, begin, 3)
            again = await events.between(session, team.workspace_id, begin, Place(0, 2**63, 0))
        assert [place.xid for place, _ in found] == [place.xid for place, _ in again] == [999, 1000, 10_000]

    async def test_nobody_is_sent_what_is_not_settled(self, feed: Feed, team: Team, db: Database) -> None:
        async with db.workspace(team.workspace_id) as slow:
            await append(slow, team.workspace_id, "began first")
            held = await tell(db, team.workspace_id, "second")
            async with db.system() as session:
                assert await events.last_settled(session) < held
        await until(lambda: feed.standing >= held)
        assert await read(Stream(feed, team.workspace_id, Wanted(), Place(0, 0, 0)), 2) == ["began first", "second"]

    async def test_many_writers_many_watchers_no_seam(self, address: str, team: Team, db: Database) -> None:
        async def write(writer: int) -> None:
            for number in range(30):
                await tell(db, team.workspace_id, f"{writer}.{number}")

        async def watch_all() -> list[str]:
            async with watching(address, team.observer, after="0-0-0") as watch:
                return [event.id for event in await watch.take(150)]

        writers = asyncio.gather(*(write(writer) for writer in range(5)))
        seen = [asyncio.create_task(watch_all()) for _ in range(3)]
        await asyncio.sleep(0)
        seen += [asyncio.create_task(watch_all()) for _ in range(3)]
        await writers
        found = await asyncio.gather(*seen)
        places = [Place.parse(name) for name in found[0]]
        assert len(set(places)) == 150
        assert places == sorted(places)
        assert all(names == found[0] for names in found)


class TestSlowWatchers:
    async def test_it_goes_back_to_the_table_and_gets_everything_once(
        self, feed: Feed, team: Team, db: Database
    ) -> None:
        total = MAX_WAITING + 700
        names = [str(number) for number in range(total)]
        slow = Stream(feed, team.workspace_id, Wanted(), None).chunks()
        assert await anext(slow) == b": open\n\n"
        assert await anext(slow) == b": heartbeat\n\n"  # it waits live, and then nobody reads it
        quick = asyncio.create_task(read(Stream(feed, team.workspace_id, Wanted(), None), total))
        await until(lambda: feed.watching == 2)
        for begin in range(0, total, 100):
            await tell(db, team.workspace_id, *names[begin : begin + 100])
        assert await quick == names
        found: list[str] = []
        async with asyncio.timeout(PATIENCE):
            while len(found) < total:
                found += subjects(await anext(slow))
        assert found == names

    async def test_so_it_does_where_a_few_events_weigh_as_much(self, feed: Feed, team: Team, db: Database) -> None:
        slow = Stream(feed, team.workspace_id, Wanted(), None).chunks()
        assert [await anext(slow) for _ in range(2)] == [b": open\n\n", b": heartbeat\n\n"]
        for _ in range(30):
            await act(db, team.workspace_id, 5, text="x" * 50_000)
        [watcher] = feed._watchers[team.workspace_id]
        await until(lambda: watcher.behind)
        assert watcher._frames == []
        pieces = list[bytes]()
        async with asyncio.timeout(PATIENCE):
            while sum(len(subjects(piece)) for piece in pieces) < 150:
                pieces.append(await anext(slow))
        assert [name for piece in pieces for name in subjects(piece)] == ["m0", "m1", "m2", "m3", "m4"] * 30
        assert max(map(len, pieces)) < PIECE_BYTES + 60_000

    async def test_who_is_shut_out_meanwhile_gets_no_more(self, feed: Feed, team: Team, db: Database) -> None:
        for _ in range(10):
            await act(db, team.workspace_id, 5, text="x" * 50_000)
        answers = [True]

        async def may_watch() -> bool:
            answers.append(answers[0])
            return answers[0]

        await until(lambda: feed.standing > BEGINNING)
        slow = Stream(feed, team.workspace_id, Wanted(), BEGINNING, may_watch).chunks()
        assert [bool(subjects(await anext(slow))) for _ in range(2)] == [False, True]
        answers[0] = False
        await until(lambda: answers[-1] is False)
        assert [piece async for piece in slow] == []

    async def test_who_leaves_is_forgotten(self, feed: Feed, team: Team, db: Database) -> None:
        stream = Stream(feed, team.workspace_id, Wanted(), None).chunks()
        await anext(stream)
        await anext(stream)
        assert feed.watching == 1
        await stream.aclose()
        assert feed.watching == 0


class TestGaps:
    async def test_events_that_are_too_old(self, feed: Feed, team: Team, db: Database) -> None:
        async with db.system() as session:
            await session.execute(text(OLD_EVENTS), {"workspace": team.workspace_id})
        young = await tell(db, team.workspace_id, "young")
        await until(lambda: feed.standing >= young)
        first, rest = await with_gap(feed, team, Place(0, 0, 0), 1)
        assert first["type"] == "replay.gap"
        assert first["asked_after"] == "0-0-0"
        assert rest == ["young"]

    async def test_too_many_events(self, feed: Feed, team: Team, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(events, "MAX_REPLAY", 5)
        names = [str(number) for number in range(12)]
        places = [await tell(db, team.workspace_id, name) for name in names]
        await until(lambda: feed.standing >= places[-1])
        first, rest = await with_gap(feed, team, Place(0, 0, 0), 5)
        assert first["resumed_after"] == str(places[6])
        assert rest == names[7:]

    async def test_a_place_that_nobody_gave_out(self, feed: Feed, team: Team, db: Database) -> None:
        past = await tell(db, team.workspace_id, "past")
        await until(lambda: feed.standing >= past)
        first, rest = await with_gap(feed, team, Place(1, 2**60, 5), 1, then="new")
        assert first["asked_after"] == f"1-{2**60}-5"
        assert rest == ["new"]

    async def test_no_gap_where_nothing_is_missing(self, feed: Feed, team: Team, db: Database) -> None:
        place = await tell(db, team.workspace_id, "1")
        await tell(db, team.workspace_id, "2")
        assert await read(Stream(feed, team.workspace_id, Wanted(), place), 1) == ["2"]

    async def test_a_client_from_a_process_that_was_ahead(self, feed: Feed, team: Team, db: Database) -> None:
        place = await tell(db, team.workspace_id, "1", "2")
        stream = Stream(feed, team.workspace_id, Wanted(), place)
        reading = asyncio.create_task(read(stream, 1))
        await tell(db, team.workspace_id, "3")
        assert await reading == ["3"]


SETTLED_EVENT = """
INSERT INTO event (epoch, xid, workspace_id, type, subject_kind, subject_id, actor, correlation_id)
VALUES (0, CAST(:xid AS xid8), :workspace, 'subsystem.report', 'thing', 'x', 'x', 'x')
"""
OLD_EVENTS = """
INSERT INTO event (occurred_at, workspace_id, type, subject_kind, subject_id, actor, correlation_id)
SELECT now() - interval '25 hours', :workspace, 'subsystem.report', 'thing', 'old', 'x', 'x' FROM generate_series(1, 3)
"""


async def with_gap(
    feed: Feed, team: Team, after: Place, count: int, then: str | None = None
) -> tuple[dict[str, str], list[str]]:
    """The gap notice that a stream begins with, and what its next events are about."""
    stream = Stream(feed, team.workspace_id, Wanted(), after).chunks()
    assert await anext(stream) == b": open\n\n"
    head, name, data, *_ = (await anext(stream)).decode().splitlines()
    gap: dict[str, str] = json.loads(data.removeprefix("data: "))
    assert name == "event: replay.gap"
    assert head == f"id: {gap['resumed_after']}"
    if then:
        await tell(feed.db, team.workspace_id, then)
    found: list[str] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            found += subjects(await anext(stream))
    await stream.aclose()
    return gap, found


async def test_streams_end_when_the_server_stops(settings: Settings, team: Team) -> None:
    async with served(settings) as address:
        opened = watching(address, team.observer)
        watch = await opened.__aenter__()
    assert await watch.ended()
    await opened.__aexit__(None, None, None)
