"""The whole system at a glance (MISS-25)."""

import asyncio
from importlib.metadata import version

from api.deps import AppSettings, Db, Reader, Workflows
from api.health import parts, running_commit
from api.routing import router
from models.configuration import config_hash
from models.domain.errors import Unavailable
from models.domain.health import overall
from models.domain.states import MissionStatus
from models.schemas.envelope import Success
from models.schemas.status import CallerView, SigningKeyView, SystemStatus
from models.settings import Settings
from models.store import policies, signing_keys, status

routes = router("status")
SHOWN_SHA = 12


@routes.get("/status")
async def get_status(call: Reader, db: Db, settings: AppSettings, gateway: Workflows) -> Success[SystemStatus]:
    """Show what runs, how it is, and how many missions of the workspace stand where."""
    async with db.workspace(call.workspace_id) as session:
        counts = await status.mission_counts(session, call.workspace_id)
        keys = await signing_keys.all_of_them(session)
        policy = await policies.active(session, call.workspace_id)
    digest = await asyncio.to_thread(_config_hash, settings, policy.version if policy else None)
    commit, found = await running_commit(settings), await parts(settings, gateway)
    return Success(
        data=SystemStatus(
            git_sha=commit.sha[:SHOWN_SHA] if commit.sha else None,
            git_branch=commit.branch,
            grace_version=version("mission-control"),
            environment=settings.env,
            total_missions=sum(counts.values()),
            open_missions=counts[MissionStatus.OPEN],
            in_progress_missions=counts[MissionStatus.IN_PROGRESS],
            resolved_missions=counts[MissionStatus.RESOLVED],
            subsystems=tuple(part.status for part in found),
            overall_health=overall((part.status.state, part.critical) for part in found),
            workspace_id=call.workspace_id,
            version=version("mission-control"),
            config_hash=digest,
            observing_missions=counts[MissionStatus.OBSERVING],
            escalated_missions=counts[MissionStatus.ESCALATED],
            signing_keys=tuple(SigningKeyView.model_validate(key) for key in keys),
            caller=CallerView.model_validate(call.principal, from_attributes=True),
        )
    )


def _config_hash(settings: Settings, policy_version: int | None) -> str | None:
    """Name the configuration; none while a file of it cannot be read, which `subsystems` then says."""
    try:
        return config_hash(settings.config_dir, policy_version)
    except Unavailable:
        return None
