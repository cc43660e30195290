"""Business ids: what things are called in Postgres is what they are called in Temporal."""

from datetime import date
from urllib.parse import quote

from models.domain.canonical import sha256_digest

MAX_WORKFLOW_ID = 1000
"""Characters that Temporal takes, as it is shipped."""


def mission_id(day: date, number: int) -> str:
    """Name the `number`-th mission a workspace filed on `day` (MISS-03); 1000 and more simply grow wider."""
    return f"mission_{day:%Y%m%d}_{number:03d}"


def mission_workflow_id(workspace_id: str, mission: str) -> str:
    """Name the workflow of a mission; two workspaces may hold the same mission id."""
    return f"mission/{workspace_id}/{mission}"


def merge_queue_workflow_id(repository_id: str, branch: str) -> str:
    """Name the merge queue of one branch; it is quoted, because it may hold slashes, or digested where that is long."""
    name = f"merge-queue/{repository_id}/{quote(branch, safe='')}"
    digest = sha256_digest(branch.encode())  # its colon stands in nothing that is quoted
    return name if len(name) <= MAX_WORKFLOW_ID else f"merge-queue/{repository_id}/{digest}"
