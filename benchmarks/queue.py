"""`GET /queue/next` by many agents until 100,000 missions are given out, against a bare SKIP LOCKED claim.

Both sides give out all they have, in rounds of as many claims. In the end each mission was given out exactly once, and
to each agent in order: the most severe first, and of those the oldest.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from secrets import token_hex

import psycopg
from psycopg import sql
from pydantic_core import from_json

from benchmarks.http import CONNECTIONS, answer, request
from benchmarks.measure import Comparison, Goal, Meter, Numbers, Side, alternate, percentile
from benchmarks.servers import BareApi, pid_of, serving
from models.domain.agents import AgentStatus, Registration
from models.domain.principals import Kind
from models.settings import Settings
from models.store.connections import plain
from models.store.database import Database
from models.store.keys import DEFAULT_WORKSPACE
from models.tables.agents import AgentRow
from tests.fixtures.access import make_key

GOAL, PLAIN = Goal("claims_per_second", "higher", 0.6), Goal("claims_per_second", "higher", None)
_TEAM = (("coding", Decimal("0.90")),) * 3 + (("healing", Decimal("0.50")),)
"""Roles and scores, in turn. Coders may take all missions, healers a quarter: all have work until the end."""

_REPOSITORY = """
INSERT INTO repository (workspace_id, repository_id, name, url, place, target_branch, protected, env, created_by)
VALUES ({workspace}, 'r', 'r', 'https://example.org/r.git', 'example.org/r', 'main', false, 'dev', 'bench')
"""
_MISSIONS = """
INSERT INTO mission (workspace_id, mission_id, repository_id, subsystem_id, severity, severity_rank, status, paused,
    control_version, mission_type, branch, env, protected, symptoms, trust_requirements, created_by, correlation_id,
    created_at)
SELECT {workspace}, 'mission.' || n, 'r', 'search', (ARRAY['critical', 'high', 'medium', 'low'])[n % 4 + 1], n % 4,
    'open', false, 0, 'coding', 'main', 'dev', false, '[{{"description": "Latency spike"}}]',
    jsonb_build_object('required_trust_score', (ARRAY[0, 0.5, 0.8, 0.9])[n / 4 % 4 + 1], 'allowed_roles',
    (ARRAY['[]', '["healing", "elite_coding_agent"]', '["elite_coding_agent"]', '["elite_coding_agent", "poet"]'])
    [n / 16 % 4 + 1]::jsonb, 'memory_write_scope', 'persist', 'requires_governance_approval', false),
    'bench', 'bench', now() - interval '2 days' + n * interval '1 second'
FROM generate_series(1, {rows}) AS n
"""
_CANDIDATES = """
INSERT INTO candidate (workspace_id, mission_id, number, ref, author, added_by)
SELECT workspace_id, mission_id, 0, 'topic', 'bench', 'bench' FROM mission
"""
_BARE = """
INSERT INTO bare_mission (id, severity_rank, created_at)
SELECT n, n % 4, now() - interval '2 days' + n * interval '1 second' FROM generate_series(1, {rows}) AS n
"""
_KEPT = "SELECT assigned_to, array_agg(mission_id) FROM mission WHERE claimed_at IS NOT NULL GROUP BY 1"
_TOLD = "SELECT actor, array_agg(subject_id) FROM event WHERE type = 'mission.assigned' GROUP BY 1"
_BARE_KEPT = "SELECT assigned_to, array_agg(id) FROM bare_mission WHERE claimed_at IS NOT NULL GROUP BY 1"

Given = Callable[[bytes], int | None]
"""Finds the number of the mission in an answer; None where nothing was given."""


@dataclass
class Agent:
    """One that claims over a connection of its own, until it is given nothing more."""

    name: str
    asks: bytes
    beats: bytes = b""
    got: list[int] = field(default_factory=list)
    is_done: bool = False

    @property
    def is_in_order(self) -> bool:
        """Whether each mission it got was more urgent, or older, than the next."""
        return all(_place(one) < _place(other) for one, other in pairwise(self.got))


async def run(quick: bool) -> list[Comparison]:
    """Compare."""
    rows, rounds = (20_000, 3) if quick else (100_000, 9)
    async with serving("postgres", "temporal", "api") as stack, BareApi(stack.settings) as bare_api:
        assert stack.settings.database_url is not None
        url = stack.settings.database_url.get_secret_value()
        fill(url, rows)
        team = await _team(stack.settings)
        bare_team = [Agent(agent.name, request("GET", f"/claim?agent={agent.name}")) for agent in team]
        per_round, postgres = rows // (2 * (rounds + 1)), stack.pid("postgres")

        def side(agents: Sequence[Agent], port: int, pid: int | None, given: Given) -> Side:
            async def claim() -> Numbers:
                await _beat(agents, port)
                begin_claimed(url)
                meter = Meter(api=pid, postgres=postgres)
                took = await _claim(agents, port, per_round, given)
                rate = per_round / meter.seconds
                shares = {f"p{share}_ms": 1000 * percentile(took, share / 100) for share in (50, 99)}
                return {"claims_per_second": rate, **shares, **meter.cpu(per=per_round / 1000)}

            return claim

        ours = side(team, stack.settings.api_port, stack.pid("api"), _ours)
        bare = side(bare_team, bare_api.settings.api_port, pid_of(bare_api), _bare)
        found = [await alternate(f"GET /queue/next of {rows:,}", GOAL, ours, bare, rounds)]
        for agent in bare_team:
            agent.asks = request("GET", f"/claim/plain?agent={agent.name}")
        found.append(await alternate("the same, bare psycopg", PLAIN, ours, bare, rounds))
        require_each_once(url, rows, team, _KEPT, _TOLD)
        require_each_once(url, rows, bare_team, _BARE_KEPT)
        return found


def fill(url: str, rows: int) -> None:
    """File that many missions on both sides."""
    values = {"workspace": sql.Literal(DEFAULT_WORKSPACE), "rows": sql.Literal(rows)}
    with psycopg.connect(plain(url), autocommit=True) as connection:
        for statement in (_REPOSITORY, _MISSIONS, _CANDIDATES, _BARE, "VACUUM ANALYZE"):
            connection.execute(sql.SQL(statement).format(**values))


def begin_claimed(url: str) -> None:
    """Let all begin what they were given in the round before: of that, an agent holds no more than it may."""
    with psycopg.connect(plain(url), autocommit=True) as connection:
        connection.execute("UPDATE mission SET run_id = 'bench' WHERE claimed_at IS NOT NULL AND run_id IS NULL")


def require_each_once(url: str, rows: int, agents: Sequence[Agent], *kept: str) -> None:
    """Hold what the agents were told against what the database says."""
    given = [number for agent in agents for number in agent.got]
    assert len(given) == len(set(given)) == rows, f"{len(given)} claims of {len(set(given))} missions among {rows}"
    told = {agent.name: sorted(agent.got) for agent in agents}
    with psycopg.connect(plain(url), autocommit=True) as connection:
        for statement in kept:
            assert told == {name: sorted(map(_number, ids)) for name, ids in connection.execute(statement)}
    assert all(agent.is_in_order for agent in agents)


async def _team(settings: Settings) -> list[Agent]:
    """Let agents in, each with a key."""
    db = Database.from_settings(settings)
    async with db.system() as session:
        team = []
        for number in range(CONNECTIONS):
            name, (role, trust) = f"agent-{number}", _TEAM[number % len(_TEAM)]
            session.add(
                AgentRow(
                    workspace_id=DEFAULT_WORKSPACE,
                    agent_id=f"agent_{token_hex(8)}",
                    name=name,
                    registration=Registration.APPROVED,
                    status=AgentStatus.ACTIVE,
                    capabilities=[role],
                    requested_by="bench",
                    trust=trust,
                )
            )
            key = await make_key(session, DEFAULT_WORKSPACE, name, kind=Kind.AGENT)
            asks = request("GET", f"/api/v1/queue/next?agent_id={name}&agent_role={role}", key)
            team.append(Agent(name, asks, request("POST", f"/api/v1/agents/{name}/heartbeat", key)))
    await db.close()
    return team


async def _beat(agents: Sequence[Agent], port: int) -> None:
    """Let all be heard of, as whoever is silent is given nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for agent in agents:
        if agent.beats:
            writer.write(agent.beats)
            await answer(reader, 200)
    writer.close()


async def _claim(agents: Sequence[Agent], port: int, wanted: int, given: Given) -> list[float]:
    """Let all agents claim at once until so many missions are given out; how long each claim took."""
    took: list[float] = []
    open_claims = wanted

    async def work(agent: Agent) -> None:
        nonlocal open_claims
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while open_claims and not agent.is_done:
            open_claims -= 1
            began = time.perf_counter()
            writer.write(agent.asks)
            number = given(await answer(reader, 200, 403))
            took.append(time.perf_counter() - began)
            if number is None:
                agent.is_done, open_claims = True, open_claims + 1
            else:
                agent.got.append(number)
        writer.close()

    while open_claims:  # who is given nothing leaves a claim to the others, who may be through by then
        await asyncio.gather(*(work(agent) for agent in agents))
        assert not all(agent.is_done for agent in agents) or not open_claims, f"{open_claims} are given to nobody"
    return took


def _ours(body: bytes) -> int | None:
    mission = from_json(body).get("data")
    return _number(mission["mission_id"]) if mission else None


def _number(mission: str | int) -> int:
    return int(str(mission).removeprefix("mission."))


def _bare(body: bytes) -> int | None:
    number: int | None = from_json(body)["id"]
    return number


def _place(number: int) -> tuple[int, int]:
    """Where a mission stands in the queue."""
    return number % 4, number
