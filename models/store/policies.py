"""A workspace's policy: its versions, which is in force, and what was judged by it."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from models.configuration import load_first_policy
from models.domain.approval import judges_alike
from models.domain.canonical import canonical_json, sha256_digest
from models.domain.events import EventType, Subject
from models.domain.names import FIRST_START
from models.domain.policy import Act, Level, Policy, Verdict, assess, parse_policy
from models.domain.refusals import missing
from models.domain.states import DecisionKind
from models.schemas.pagination import PageRequest
from models.store import events, lists
from models.store.database import within
from models.store.events import Actor
from models.store.pagination import Rows
from models.tables.policies import PolicyActive, PolicyVersion, VerdictRow

FIRST = 1
MAX_KEPT = 1_000
"""Workspaces whose policies are kept, at some 50 kB each, a long one at a megabyte. Of more all are let go, and read
again when they judge: nobody writes down which did last."""
FEW_LETTERS = 2_000
"""Held against the patterns of the first policy they take half a millisecond: no more than a thread is worth."""


@dataclass(frozen=True)
class InForce:
    """A version of a workspace's policy, read."""

    version: int
    policy: Policy


class PolicyBook:
    """The policies in force as this process knows them. `judge` sees by itself when one has been replaced."""

    def __init__(self, config_dir: Path) -> None:
        self._config_dir = config_dir
        self._known: dict[str, InForce] = {}
        self._reading: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def in_force(self, session: AsyncSession, workspace_id: str) -> InForce:
        """Read which version is in force now; a workspace that has none yet gets its first from `config/`.

        Raises:
            Unavailable: `config_invalid`, there is no first version to be had.
        """
        row = await active(session, workspace_id)
        if row is None:
            await _seed(session, workspace_id, await asyncio.to_thread(load_first_policy, self._config_dir))
            row = await active(session, workspace_id)
        assert row is not None  # noqa: S101  # seeded just now, by us or by another
        # A crowd that asks after an activation reads it once; other workspaces do not wait for it.
        async with self._reading.setdefault(workspace_id, asyncio.Lock()):
            known = self._known.get(workspace_id)
            return known if known and known.version == row.version else await self._keep(row)

    async def judge(
        self,
        session: AsyncSession,
        workspace_id: str,
        wanted: Act | Callable[[Policy], Act],
        verdict_id: str,
        mission_id: str | None = None,
    ) -> tuple[Verdict, InForce]:
        """Judge an act by the policy in force and keep the verdict, once under its id.

        The statement that keeps it finds out whether what this process knows is still in force. An act that a policy
        must look at to know what of it may be kept is given as a function.
        """
        known = self._known.get(workspace_id) or await self.in_force(session, workspace_id)
        while True:
            act = wanted(known.policy) if callable(wanted) else wanted
            verdict = await _assessed(act, known.policy)
            if await _keep_verdict(session, workspace_id, act, verdict, known.version, verdict_id, mission_id):
                return verdict, known
            known = await self.in_force(session, workspace_id)

    async def judges_otherwise(
        self, session: AsyncSession, workspace_id: str, verdict_id: str, kind: DecisionKind, level: Level | None
    ) -> bool:
        """Whether the policy in force makes something else of an act than was made of it; its agent has a `level`."""
        place = {"workspace_id": workspace_id, "verdict_id": verdict_id}
        found = await within(session)(_JUDGED, place)
        if not found or (not found[0]["is_older"] and level in (None, found[0]["level"])):
            return False
        return await self.differs(session, workspace_id, verdict_id, kind, level)

    async def differs(
        self, session: AsyncSession, workspace_id: str, verdict_id: str, kind: DecisionKind, level: Level | None = None
    ) -> bool:
        """Whether the policy in force makes something else of an act than its verdict says, whatever version was asked.

        `level` is that of its agent by now, where it is another. Of a tool call a verdict keeps only those words that
        were secrets then: other patterns may find others.
        """
        kept = await session.get_one(VerdictRow, (workspace_id, verdict_id))
        before = await require(session, workspace_id, kept.policy_version)
        now = (await self.in_force(session, workspace_id)).policy
        law = await asyncio.to_thread(parse_policy, before.source)
        if kind is DecisionKind.TOOL_ACTION and {*law.secret_paths} != {*now.secret_paths}:
            return True
        return not judges_alike(Act.model_validate(kept.input), kind, law, now, level)

    async def _keep(self, row: PolicyVersion) -> InForce:
        """Read a version in a thread: a long one takes most of a second."""
        found = InForce(row.version, await asyncio.to_thread(parse_policy, row.source))
        if len(self._known) >= MAX_KEPT:
            self._known.clear()
        self._known[row.workspace_id] = found
        return found


async def _assessed(act: Act, policy: Policy) -> Verdict:
    """Judge an act; the loop serves others while many paths are held against many patterns."""
    judged = (act.action, act.principal, act.context, policy)
    return await asyncio.to_thread(assess, *judged) if is_long(act.context.paths) else assess(*judged)


def is_long(paths: Collection[str]) -> bool:
    """Whether it takes noticeable time to hold paths against the patterns of a policy."""
    return sum(map(len, paths)) > FEW_LETTERS


async def active(session: AsyncSession, workspace_id: str) -> PolicyVersion | None:
    """Read the version in force; None in a workspace that was never judged."""
    joined = (col(PolicyActive.workspace_id) == col(PolicyVersion.workspace_id)) & (
        col(PolicyActive.version) == col(PolicyVersion.version)
    )
    statement = select(PolicyVersion).join(PolicyActive, joined).where(PolicyActive.workspace_id == workspace_id)
    return (await session.scalars(statement)).one_or_none()


async def list_page(session: AsyncSession, workspace_id: str, page: PageRequest) -> Rows[PolicyVersion]:
    """Read one page of versions."""
    return await lists.fetch(session, PolicyVersion, workspace_id, {}, (col(PolicyVersion.version),), page)


async def require(session: AsyncSession, workspace_id: str, version: int) -> PolicyVersion:
    """Read a version that must be there."""
    found = await session.get(PolicyVersion, (workspace_id, version))
    if found is None:
        raise missing("version {} of the policy", version)
    return found


async def create(session: AsyncSession, workspace_id: str, source: str, note: str, actor: Actor) -> PolicyVersion:
    """Keep a new version, which nothing is judged by until it is activated; of a workspace that has one in force.

    `parse_policy` has read it before: that may take longer than a transaction should.
    """
    await _lock(session, workspace_id)
    last = select(func.max(PolicyVersion.version)).where(PolicyVersion.workspace_id == workspace_id)
    made = await _insert(session, workspace_id, (await session.scalar(last) or 0) + 1, source, note, actor)
    await _tell(session, workspace_id, EventType.POLICY_VERSION_CREATED, actor, made.version, {"note": note})
    return made


async def activate(session: AsyncSession, workspace_id: str, version: int, actor: Actor) -> PolicyVersion:
    """Let all that is judged from now on be judged by a version; the one in force is activated by doing nothing."""
    chosen = await require(session, workspace_id, version)
    before = await _lock(session, workspace_id)
    if before is None or before.version == version:
        return chosen
    before_version, before.version = before.version, version
    before.activated_by, before.activated_at = actor.name, await session.scalar(select(func.mc_now()))
    await session.flush()
    data = {"before": before_version, "digest": chosen.digest}
    await _tell(session, workspace_id, EventType.POLICY_ACTIVATED, actor, version, data)
    return chosen


async def verdict_page(
    session: AsyncSession, workspace_id: str, filters: Mapping[str, object], page: PageRequest
) -> Rows[VerdictRow]:
    """Read one page of verdicts."""
    keys = (col(VerdictRow.at), col(VerdictRow.verdict_id))
    return await lists.fetch(session, VerdictRow, workspace_id, filters, keys, page)


async def verdicts(session: AsyncSession, workspace_id: str, limit: int) -> Sequence[VerdictRow]:
    """Read the newest verdicts."""
    statement = select(VerdictRow).where(VerdictRow.workspace_id == workspace_id)
    newest = statement.order_by(col(VerdictRow.at).desc(), col(VerdictRow.verdict_id).desc()).limit(limit)
    return list(await session.scalars(newest))


async def sources(session: AsyncSession, workspace_id: str, versions: Collection[int]) -> dict[int, str]:
    """Read the texts of versions of the policy; reading them as laws may take longer than a transaction should."""
    wanted = select(PolicyVersion).where(
        PolicyVersion.workspace_id == workspace_id, col(PolicyVersion.version).in_(versions)
    )
    return {row.version: row.source for row in await session.scalars(wanted)}


async def _seed(session: AsyncSession, workspace_id: str, source: str) -> None:
    """Make version 1 and put it in force, unless somebody else just did."""
    actor = Actor(FIRST_START, f"policy/{workspace_id}")
    row = {"workspace_id": workspace_id, "version": FIRST, "source": source, "digest": sha256_digest(source.encode())}
    made = insert(PolicyVersion).values(**row, created_by=actor.name).on_conflict_do_nothing()
    await session.execute(made)
    chosen = {"workspace_id": workspace_id, "version": FIRST, "activated_by": actor.name}
    put = insert(PolicyActive).values(**chosen).on_conflict_do_nothing().returning(col(PolicyActive.version))
    if (await session.execute(put)).first() is not None:
        data = {"before": None, "digest": row["digest"]}
        await _tell(session, workspace_id, EventType.POLICY_ACTIVATED, actor, FIRST, data)


async def _insert(
    session: AsyncSession, workspace_id: str, version: int, source: str, note: str, actor: Actor
) -> PolicyVersion:
    row = {"workspace_id": workspace_id, "version": version, "source": source, "note": note}
    whole = {**row, "digest": sha256_digest(source.encode()), "created_by": actor.name}
    return (await session.scalars(insert(PolicyVersion).values(**whole).returning(PolicyVersion))).one()


async def _lock(session: AsyncSession, workspace_id: str) -> PolicyActive | None:
    """Let one at a time number versions, or choose among them."""
    return await session.get(PolicyActive, workspace_id, with_for_update=True)


async def _tell(
    session: AsyncSession, workspace_id: str, kind: EventType, actor: Actor, version: int, data: Mapping[str, Any]
) -> None:
    about = Subject(kind="policy", id=str(version))
    await events.append(session, workspace_id, kind, about, actor, {"version": version, **data})


async def _keep_verdict(
    session: AsyncSession,
    workspace_id: str,
    act: Act,
    verdict: Verdict,
    version: int,
    verdict_id: str,
    mission_id: str | None,
) -> bool:
    """Keep a verdict, unless its version is not in force any more: then false, and nothing is kept."""
    told = verdict.model_dump(mode="json")
    values = {
        "workspace_id": workspace_id,
        "verdict_id": verdict_id,
        "version": version,
        "action": act.action,
        "input": canonical_json(act.model_dump(mode="json")).decode(),
        "risk": told["risk"],
        "outcome": told["outcome"],
        "rules": canonical_json(told["rules"]).decode(),
        "reasons": canonical_json(told["reasons"]).decode(),
        "mission_id": mission_id,
    }
    [row] = await within(session)(_KEEP, values)
    return bool(row["in_force"])


_KEEP = """
    WITH active AS (
        SELECT FROM policy_active WHERE workspace_id = %(workspace_id)s AND version = %(version)s
    ), kept AS (
        INSERT INTO verdict
        (workspace_id, verdict_id, policy_version, action, input, risk, outcome, rules, reasons, mission_id)
        SELECT %(workspace_id)s, %(verdict_id)s, %(version)s, %(action)s, CAST(%(input)s AS jsonb), %(risk)s,
        %(outcome)s, CAST(%(rules)s AS jsonb), CAST(%(reasons)s AS jsonb), %(mission_id)s FROM active
        ON CONFLICT DO NOTHING
    )
    SELECT EXISTS (SELECT FROM active) AS in_force
"""
_JUDGED = """
    SELECT policy_version <> active.version AS is_older, input -> 'principal' ->> 'level' AS level
    FROM verdict JOIN policy_active AS active USING (workspace_id)
    WHERE workspace_id = %(workspace_id)s AND verdict_id = %(verdict_id)s
"""
