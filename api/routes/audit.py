"""The audit log: reading, exporting, proving and verifying it (AUD-01..12). No route changes what was done."""

import asyncio
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request, Response
from pydantic import AwareDatetime
from sqlalchemy.ext.asyncio import AsyncSession

from api.deps import Admin, Db, Human, Newest, OnlyOnce, Operator, Pagination
from api.routing import router, unwrapped
from api.services import services
from api.streams import HeldStream, guarded
from models.contracts.missions import Named
from models.domain.audit_verifying import Verifier
from models.domain.checkpoints import raw_key
from models.domain.errors import Conflict
from models.domain.events import Subject
from models.domain.refusals import require_order
from models.domain.stages import StageName
from models.schemas import links
from models.schemas.audit import (
    AuditVerdictView,
    AuditView,
    CheckpointView,
    ConsistencyProof,
    InclusionProof,
    Redaction,
)
from models.schemas.envelope import Page, Success
from models.schemas.events import content_of
from models.schemas.pagination import PageRequest
from models.store import audit, audit_export, audit_tree, signing_keys
from models.tables.audit import AuditRow

routes = router("audit")
BySize = Annotated[PageRequest, Depends(Pagination("size", default="-size"))]
RowId = Annotated[int, Path(ge=0, le=2**63 - 1)]


@routes.get("/audit")
async def list_audit(
    call: Human,
    db: Db,
    page: Newest,
    actor: Named | None = None,
    action: str | None = None,
    subject: Annotated[str | None, Query(description="The id of what was acted upon.")] = None,
    subject_kind: str | None = None,
    since: Annotated[AwareDatetime | None, Query(alias="from")] = None,
    until: Annotated[AwareDatetime | None, Query(alias="to", description="Before this moment.")] = None,
) -> Success[Page[AuditView]]:
    """List acts, the newest first."""
    require_order(since, until, ("from", "to"))
    filters = {"actor": actor, "action": action, "subject_id": subject, "subject_kind": subject_kind}
    async with db.workspace(call.workspace_id) as session:
        found = await audit.list_page(session, call.workspace_id, filters, page, since, until)
    return Success(data=Page(items=[_view(row) for row in found.rows], next_cursor=found.next_cursor))


@routes.get("/audit/export", response_class=Response, responses=unwrapped("application/x-ndjson"))
async def export_audit(request: Request, call: Admin, db: Db) -> HeldStream:
    """Export the workspace's log as JSON lines that `mission-control audit verify` checks without any server.

    Where its caller loses the key or the role meanwhile, it breaks off: the connection ends, and the last line lacks.
    """
    pieces = services(request).long_work.paced(audit_export.pieces(db, call.workspace_id))
    return HeldStream(request, guarded(request, pieces), "application/x-ndjson")


@routes.get("/audit/verify")
async def verify_audit(request: Request, call: Operator, db: Db) -> Success[AuditVerdictView]:
    """Verify the workspace's log here, once at a time for a key. Whoever does not trust us verifies an export."""
    work = services(request).long_work
    async with db.system() as session:
        keys = [raw_key(key.public_key) for key in await signing_keys.all_of_them(session)]
    verifier = Verifier(keys)
    paced = aclosing(work.paced(audit_export.pieces(db, call.workspace_id)))
    async with work.turn(call.principal.lineage), paced as pieces:
        async for piece in pieces:
            if not await asyncio.to_thread(_take_all, verifier, piece):
                break
    verdict = verifier.verdict()
    verdict.problem = verdict.problem or verdict.shortfall(strict=False)
    return Success(data=AuditVerdictView.model_validate(verdict))


@routes.get("/audit/checkpoints")
async def list_checkpoints(call: Human, db: Db, page: BySize) -> Success[Page[CheckpointView]]:
    """List the signed checkpoints of the installation, the newest first."""
    async with db.workspace(call.workspace_id) as session:
        found = await audit_tree.list_checkpoints(session, page)
    items = [CheckpointView.model_validate(row) for row in found.rows]
    return Success(data=Page(items=items, next_cursor=found.next_cursor))


@routes.get("/audit/consistency")
async def prove_consistency(
    call: Human,
    db: Db,
    old: Annotated[int, Query(alias="from", ge=0, le=2**63 - 1)],
    new: Annotated[int, Query(alias="to", ge=0, le=2**63 - 1)],
) -> Success[ConsistencyProof]:
    """Prove that the log of size `to` begins with that of size `from`."""
    async with db.system() as session:
        hashes = await audit_tree.consistency_proof(session, old, new)
    return Success(data=ConsistencyProof(from_size=old, to_size=new, hashes=[found.hex() for found in hashes]))


@routes.get("/audit/{row_id}")
async def get_audit(row_id: RowId, call: Human, db: Db) -> Success[AuditView]:
    """Show an act."""
    async with db.workspace(call.workspace_id) as session:
        return Success(data=_view(await audit.require(session, call.workspace_id, row_id)))


@routes.get("/audit/{row_id}/proof")
async def prove_inclusion(row_id: RowId, call: Human, db: Db) -> Success[InclusionProof]:
    """Prove that an act stands in the log of the newest checkpoint; 409 `audit_not_sealed` in its first seconds."""
    async with db.workspace(call.workspace_id) as session:
        committed, leaf = await audit.require_sealed(session, call.workspace_id, row_id)
    async with db.system() as session:
        last = await audit_tree.latest(session)
        if last is None:
            raise Conflict("audit_not_sealed", "nothing is sealed yet: ask again in a few seconds")
        hashes = await audit_tree.inclusion_proof(session, leaf, last.size)
    proof = InclusionProof(
        row=committed,
        leaf_index=leaf.tree_index,
        leaf=leaf.leaf.hex(),
        hashes=[found.hex() for found in hashes],
        checkpoint=last.note,
        key_id=last.key_id,
        signed_at=last.created_at,
    )
    return Success(data=proof)


@routes.post("/audit/{row_id}/redact", response_model=Success[AuditView])
async def redact_audit(row_id: RowId, body: Redaction, call: Admin, once: OnlyOnce) -> Response:
    """Remove what a row says, such as a secret or a person's data. That is an act of its own, and all proofs hold.

    Only the log forgets it: what the act was about, and its event, keep their words (`docs/audit.md`, Redaction).
    """

    async def redact(session: AsyncSession) -> AuditView:
        return _view(await audit.redact(session, call.workspace_id, row_id, body.reason, call.actor))

    return await once.commit(redact)


def _take_all(verifier: Verifier, piece: str) -> bool:
    return all(verifier.take(line) for line in piece.rstrip("\n").split("\n"))


def _view(row: AuditRow) -> AuditView:
    content = None if row.content is None else content_of(row.content)
    return AuditView(
        id=row.id,
        created_at=row.created_at,
        actor=row.actor,
        actor_kind=row.actor_kind,
        action=row.action,
        subject=Subject.kept(row.subject_kind, row.subject_id),
        correlation_id=row.correlation_id,
        git_sha=row.git_sha,
        config_hash=row.config_hash,
        digest=row.digest.hex(),
        content=content,
        links=_links(row, content or {}),
    )


def _links(row: AuditRow, content: dict[str, Any]) -> dict[str, str]:
    """Lead to what proves a row, and from a mission's to what it tells of (AUD-10)."""
    place = f"{links.API}/audit/{row.id}"
    found = {"self": place, "proof": f"{place}/proof"}
    if row.subject_kind == "mission":
        mission = links.mission(row.subject_id)
        found |= {"mission": mission, "evidence": f"{mission}/evidence"}
        match content:
            case {"record": {"evidence": [str(kept), *_]}, "stage": str(stage)} if stage in _KEPT_BY:
                found[_KEPT_BY[StageName(stage)]] = links.blob(row.subject_id, kept)
    return found


_KEPT_BY = {
    StageName.RUN_TESTS: "test_results",
    StageName.PUBLISH_DIAGNOSTICS: "diagnostics",
    StageName.COLLECT_METRICS: "metrics",
}
"""What the evidence of a stage is, by the name of the link that leads from the stage's end to it."""
