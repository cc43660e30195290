"""The addresses of things, as they stand in `links` and in evidence."""

from urllib.parse import quote

from models.domain.ids import mission_workflow_id

API = "/api/v1"
API_DOCS = "/api-docs"


def mission(mission_id: str) -> str:
    """The address of a mission."""
    return f"{API}/missions/{quote(mission_id, safe='')}"


def decision(decision_id: str) -> str:
    """The address of a decision."""
    return f"{API}/decisions/{quote(decision_id, safe='')}"


def tool_call(run_id: str, number: int) -> str:
    """The address of a tool call."""
    return f"{API}/runs/{run_id}/tool-calls/{number}"


def memory(memory_id: str) -> str:
    """The address of a note."""
    return f"{API}/memory/{quote(memory_id, safe='')}"


def blob(mission_id: str, digest: str) -> str:
    """The address of something stored for a mission."""
    return f"{mission(mission_id)}/blobs/{digest}"


def stage(mission_id: str, name: str, round_: int, candidate: int) -> dict[str, str]:
    """The addresses of one run of a stage, and of what its commands printed."""
    place = f"{mission(mission_id)}/stages/{name}"
    run = f"round={round_}&candidate={candidate}"
    return {"self": f"{place}?{run}", "log": f"{place}/log?{run}"}


def temporal(ui_url: str, namespace: str, workspace_id: str, mission_id: str) -> str:
    """The page of a mission's workflow in Temporal's own UI."""
    workflow = quote(mission_workflow_id(workspace_id, mission_id), safe="")
    return f"{ui_url.rstrip('/')}/namespaces/{quote(namespace, safe='')}/workflows/{workflow}"
