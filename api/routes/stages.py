"""What a mission's stages did: their signed records, logs and evidence (MISS-08, MISS-14..16, PIPE-20)."""

import json
from typing import Annotated

from fastapi import Depends, Path, Query, Request, Response
from fastapi.responses import PlainTextResponse
from sqlalchemy.ext.asyncio import AsyncSession

from api.deps import Db, Pagination, Reader
from api.missions import ThisMission
from api.routing import router, unwrapped
from api.streams import HeldStream, guarded
from api.views import diagnostics_link
from models.domain import spellings
from models.domain.errors import NotFound
from models.domain.stages import StageName, stage_by_number
from models.schemas import links
from models.schemas.envelope import Page, Success
from models.schemas.metrics import ObservationView
from models.schemas.pagination import DEFAULT_LIMIT, MAX_LIMIT, MAX_OFFSET, PageRequest
from models.schemas.stages import EvidenceView, StageView, TestResultPage, TestResultView
from models.store import blobs, candidates, packages, records
from models.tables.missions import Mission, Stage

routes = router("stages")

SAMPLES = 200
"""Of a mission's samples, evidence shows the newest; `GET /metrics/observations?mission_id=` lists all."""
_UNSNIFFED = {"X-Content-Type-Options": "nosniff"}


async def _stage_name(
    stage: Annotated[str, Path(description="A stage's number (`1` to `11`, `4s`) or name.")],
) -> StageName:
    name = stage_by_number(stage)
    if name is None:
        known = ", ".join(f"{known.number} {known.value}" for known in StageName)
        raise NotFound("stage_not_found", f"there is no stage {stage!r}; there are: {known}")
    return name


InOrder = Annotated[PageRequest, Depends(Pagination("started_at", default="started_at"))]
Named = Annotated[StageName, Depends(_stage_name)]
Round = Annotated[int | None, Query(ge=0, description="How often the target branch had moved; else the last.")]
Tried = Annotated[int | None, Query(ge=0, description="The candidate's number; else the one tried last.")]
Digest = Annotated[str, Path(pattern=spellings.DIGEST)]


@routes.get("/missions/{mission_id}/stages")
async def list_stages(call: Reader, mission: ThisMission, db: Db, page: InOrder) -> Success[Page[StageView]]:
    """List the records of a mission's stages in the order in which they began."""
    async with db.workspace(call.workspace_id) as session:
        found = await records.list_page(session, mission, page)
    return Success(data=Page(items=[_view(row) for row in found.rows], next_cursor=found.next_cursor))


@routes.get("/missions/{mission_id}/stages/{stage}")
async def get_stage(
    call: Reader, mission: ThisMission, db: Db, name: Named, round: Round = None, candidate: Tried = None
) -> Success[StageView]:
    """Show a stage's record; of its latest run unless round or candidate say which."""
    async with db.workspace(call.workspace_id) as session:
        return Success(data=_view(await records.require(session, mission, name, round, candidate)))


@routes.get("/missions/{mission_id}/stages/{stage}/log", response_class=Response, responses=unwrapped("text/plain"))
async def get_log(
    request: Request,
    call: Reader,
    mission: ThisMission,
    db: Db,
    name: Named,
    round: Round = None,
    candidate: Tried = None,
    follow: Annotated[bool, Query(description="Go on while the stage runs.")] = False,
    offset: Annotated[int, Query(ge=0, description="Leave out so many bytes of the beginning.")] = 0,
) -> Response:
    """Show what a stage's commands printed, as plain text."""
    async with db.workspace(call.workspace_id) as session:
        stage = await records.require(session, mission, name, round, candidate)
        printed = b"" if follow else await records.log(session, stage)
    if follow:
        pieces = guarded(request, records.follow(db, mission, stage, offset))
        return HeldStream(request, pieces, "text/plain", _UNSNIFFED)
    return PlainTextResponse(printed[offset:], headers=_UNSNIFFED)


@routes.get("/missions/{mission_id}/evidence")
async def get_evidence(
    call: Reader,
    mission: ThisMission,
    db: Db,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Of the test results.")] = DEFAULT_LIMIT,
    offset: Annotated[int, Query(ge=0, le=MAX_OFFSET, description="Of the test results.")] = 0,
) -> Success[EvidenceView]:
    """Show all that a mission left behind: signed records, stored things, a page of test results, samples."""
    async with db.workspace(call.workspace_id) as session:
        stages = await records.of_mission(session, mission)
        stored = await packages.evidence(session, mission)
        tests = await _test_results(session, mission, limit, offset)
        samples = await packages.samples(session, mission, SAMPLES)
    view = EvidenceView(
        workspace_id=mission.workspace_id,
        mission_id=mission.mission_id,
        stages=tuple(_view(stage) for stage in stages),
        evidence=tuple(stored),
        test_results=tests,
        metric_observations=tuple(ObservationView.model_validate(sample) for sample in samples),
        links={"mission": links.mission(mission.mission_id)} | diagnostics_link(stored),
    )
    return Success(data=view)


@routes.get("/missions/{mission_id}/diff", response_class=Response, responses=unwrapped("text/plain"))
async def get_diff(
    call: Reader, mission: ThisMission, db: Db, round: Round = None, candidate: Tried = None
) -> Response:
    """Show the change that is merged once it is approved: as git made it, or before that as it was filed."""
    async with db.workspace(call.workspace_id) as session:
        digest = await records.diff_digest(session, mission, round, candidate)
        if digest is None:
            filed = await candidates.of_mission(session, call.workspace_id, mission.mission_id)
            digest = next((known.digest for known in filed if known.number == (candidate or 0)), None)
        diff = await blobs.get(session, call.workspace_id, digest) if digest else None
    if diff is None:
        raise NotFound("diff_not_found", "no diff is stored there: of a ref, one is made when the mission runs")
    return PlainTextResponse(diff, headers=_UNSNIFFED | {"ETag": f'"{digest}"'})


@routes.get(
    "/missions/{mission_id}/blobs/{digest}", response_class=Response, responses=unwrapped("application/octet-stream")
)
async def get_blob(call: Reader, mission: ThisMission, db: Db, digest: Digest) -> Response:
    """Show something stored for a mission by its digest: a diff, a log, a report."""
    async with db.workspace(call.workspace_id) as session:
        content = None
        if await packages.holds(session, mission, digest):
            content = await blobs.get(session, call.workspace_id, digest)
    if content is None:
        raise NotFound("blob_not_found", "nothing of that digest is stored for this mission")
    return Response(content, media_type=_media_type(content), headers=_UNSNIFFED)


async def _test_results(session: AsyncSession, mission: Mission, limit: int, offset: int) -> TestResultPage:
    found, total = await packages.test_results(session, mission, limit, offset)
    cases = tuple(TestResultView.model_validate(test) for test in found)
    return TestResultPage(items=cases, total=total, limit=limit, offset=offset)


def _media_type(content: bytes) -> str:
    """Stored things are text; reports are JSON. Nothing is ever served as what a browser would run."""
    if content[:1] in (b"{", b"["):
        try:
            json.loads(content)
        except ValueError:
            return "text/plain"
        return "application/json"
    return "text/plain"


def _view(stage: Stage) -> StageView:
    fields = {name: getattr(stage, name) for name in StageView.model_fields if hasattr(stage, name)}
    fields["inputs"] = stage.result.get("inputs") or stage.inputs  # before its end: which answer it waits for
    own = links.stage(stage.mission_id, stage.stage, stage.round, stage.candidate)
    return StageView.model_validate(fields | {"number": StageName(stage.stage).number, "links": own})
