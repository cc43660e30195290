"""The policy: its versions, which one is in force, and what it says or would have said (POL-09)."""

import asyncio
from contextlib import nullcontext
from typing import Annotated

from fastapi import Depends, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth import Call
from api.deps import Admin, AppSettings, Db, OnlyOnce, Operator, Pagination, Policies, Reader
from api.routing import router
from api.services import services
from api.views import page_of
from models.domain.errors import InvalidInput
from models.domain.policy import Outcome, Policy, Risk, assess, parse_policy
from models.domain.policy_names import parse_new_policy, require_known
from models.domain.replaying import replay
from models.schemas.envelope import Page, Success
from models.schemas.pagination import PageRequest
from models.schemas.policy import (
    MAX_COMPARED,
    Explained,
    PolicyActivated,
    PolicyCreate,
    PolicyExplain,
    PolicyTried,
    PolicyTry,
    PolicyVersionSummary,
    PolicyVersionView,
    VerdictView,
)
from models.store import policies
from models.store.database import Database
from models.store.policies import is_long
from models.tables.policies import PolicyVersion

routes = router("policy")
Newest = Annotated[PageRequest, Depends(Pagination("version", default="-version"))]
MAX_TEXT = 500_000
"""Characters of the policies by which past acts were judged: reading them takes two seconds."""
Latest = Annotated[PageRequest, Depends(Pagination("at", default="-at"))]


@routes.get("/policy")
async def get_policy(call: Reader, db: Db, book: Policies) -> Success[PolicyVersionView]:
    """Show the policy in force."""
    async with db.workspace(call.workspace_id) as session:
        found = await book.in_force(session, call.workspace_id)
        row = await policies.require(session, call.workspace_id, found.version)
    return Success(data=_view(row, found.policy))


@routes.get("/policy/versions")
async def list_policy_versions(
    call: Reader, db: Db, book: Policies, page: Newest
) -> Success[Page[PolicyVersionSummary]]:
    """List the versions of the policy, the newest first."""
    async with db.workspace(call.workspace_id) as session:
        await book.in_force(session, call.workspace_id)
        return page_of(PolicyVersionSummary, await policies.list_page(session, call.workspace_id, page))


@routes.get("/policy/versions/{version}")
async def get_policy_version(version: int, call: Reader, db: Db) -> Success[PolicyVersionView]:
    """Show a version of the policy with its text."""
    async with db.workspace(call.workspace_id) as session:
        row = await policies.require(session, call.workspace_id, version)
    return Success(data=_view(row, await asyncio.to_thread(parse_policy, row.source)))


@routes.post("/policy/versions", status_code=201, response_model=Success[PolicyVersionView])
async def create_policy_version(new: PolicyCreate, call: Admin, once: OnlyOnce, book: Policies) -> Response:
    """Keep a new version of the policy. It changes nothing until it is activated: try it first."""
    policy = await asyncio.to_thread(parse_new_policy, new.source)

    async def create(session: AsyncSession) -> PolicyVersionView:
        await book.in_force(session, call.workspace_id)
        row = await policies.create(session, call.workspace_id, new.source, new.note, call.actor)
        return _view(row, policy)

    return await once.commit(create)


@routes.post("/policy/versions/{version}/activate", response_model=Success[PolicyActivated])
async def activate_policy_version(version: int, call: Admin, once: OnlyOnce, db: Db, book: Policies) -> Response:
    """Judge by this version from now on; an older one, too. What was asked before stands as it was asked.

    The answer tells how much this version says, and how much the one that was in force: what was dropped holds no more.
    """
    async with db.workspace(call.workspace_id) as session:
        before = await book.in_force(session, call.workspace_id)
        source = (await policies.require(session, call.workspace_id, version)).source
    policy = await asyncio.to_thread(parse_policy, source)

    async def activate(session: AsyncSession) -> PolicyActivated:
        row = await policies.activate(session, call.workspace_id, version, call.actor)
        return PolicyActivated(**dict(_view(row, policy)), before=before.version, before_size=before.policy.size)

    return await once.commit(activate)


@routes.get("/policy/verdicts")
async def list_verdicts(
    call: Reader,
    db: Db,
    page: Latest,
    action: str | None = None,
    risk: Risk | None = None,
    outcome: Outcome | None = None,
    mission_id: str | None = None,
) -> Success[Page[VerdictView]]:
    """List what was judged, the newest first: each verdict with its version and all that it was told."""
    filters = {"action": action, "risk": risk, "outcome": outcome, "mission_id": mission_id}
    async with db.workspace(call.workspace_id) as session:
        return page_of(VerdictView, await policies.verdict_page(session, call.workspace_id, filters, page))


@routes.post("/policy/try")
async def try_policy(request: Request, wanted: PolicyTry, call: Operator, db: Db) -> Success[PolicyTried]:
    """Judge past acts again by another policy: how many verdicts would have been others, and which. Nothing changes."""
    async with services(request).long_work.turn(call.principal.lineage):
        return Success(data=await _tried(wanted, call, db))


async def _tried(wanted: PolicyTry, call: Call, db: Database) -> PolicyTried:
    async with db.workspace(call.workspace_id) as session:
        source, read = wanted.source, parse_new_policy
        if wanted.version is not None:
            source = (await policies.require(session, call.workspace_id, wanted.version)).source
            read = parse_policy
    policy = await asyncio.to_thread(read, source or "")
    _hold_to_bounds(policy, wanted.limit)
    async with db.workspace(call.workspace_id) as session:
        past = await policies.verdicts(session, call.workspace_id, wanted.limit)
        sources = await policies.sources(session, call.workspace_id, {row.policy_version for row in past})
    if sum(map(len, sources.values())) > MAX_TEXT:
        told = (
            f"the last {len(past)} acts were judged by {len(sources)} long versions of the policy: give a lower `limit`"
        )
        raise InvalidInput("too_many_to_try", told)
    laws = await asyncio.to_thread(lambda: {version: parse_policy(text) for version, text in sources.items()})
    for version, law in laws.items():
        _hold_to_bounds(law, len(past), f" in version {version}, by which some of them were judged,")
    return PolicyTried.of(await asyncio.to_thread(replay, past, laws, policy))


def _view(row: PolicyVersion, policy: Policy) -> PolicyVersionView:
    return PolicyVersionView(**row.model_dump(), size=policy.size)


def _hold_to_bounds(policy: Policy, acts: int, where: str = "") -> None:
    if len(policy.rules) * acts > MAX_COMPARED:
        most = MAX_COMPARED // len(policy.rules)
        told = f"{len(policy.rules)} rules{where} against {acts} acts are too many at once"
        raise InvalidInput("too_many_to_try", f"{told}: give a `limit` of at most {most}")


@routes.post("/policy/explain")
async def explain_policy(
    request: Request, asked: PolicyExplain, call: Reader, db: Db, book: Policies, settings: AppSettings
) -> Success[Explained]:
    """Say what the policy in force makes of an act, and why. Nothing is done, asked or kept."""
    async with db.workspace(call.workspace_id) as session:
        law = await book.in_force(session, call.workspace_id)
    require_known(asked.facts, law.policy)
    act = asked.act(settings.env)
    # Many globs over many long paths take a while: the loop serves others meanwhile.
    work, key = services(request).long_work, f"explain {call.principal.lineage}"
    async with work.turn(key) if is_long(asked.paths) else nullcontext():
        verdict = await asyncio.to_thread(assess, act.action, act.principal, act.context, law.policy)
    who = verdict.ask if verdict.asks else None
    return Success(data=Explained(policy_version=law.version, **(dict(verdict) | {"ask": who})))
