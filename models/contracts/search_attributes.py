"""By what operators find missions in Temporal: keywords that a mission's workflow is started with."""

from enum import StrEnum


class SearchAttribute(StrEnum):
    """A keyword attribute. The type of the workflow tells what kind of mission it is; its state is in Postgres."""

    WORKSPACE_ID = "WorkspaceId"
    MISSION_ID = "MissionId"
    SEVERITY = "Severity"
