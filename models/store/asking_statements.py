"""Who asked for a mission, as parts of other statements; the workspace is their parameter `workspace_id`."""


def filers_of(mission: str) -> str:
    """Ask for `created_by` of a mission, and of those that it files again."""
    return f"""
    WITH RECURSIVE again (retry_of, created_by) AS (
        SELECT retry_of, created_by FROM mission WHERE workspace_id = %(workspace_id)s AND mission_id = {mission}
        UNION
        SELECT m.retry_of, m.created_by FROM mission m JOIN again ON m.mission_id = again.retry_of
        WHERE m.workspace_id = %(workspace_id)s
    )
    SELECT DISTINCT created_by FROM again ORDER BY created_by
"""  # noqa: S608  # a column or a parameter, no input


def starters_of(mission: str) -> str:
    """Ask for `created_by`, who had a mission started: the audit log knows for good."""
    return f"""
    SELECT DISTINCT a.actor AS created_by FROM audit a WHERE a.workspace_id = %(workspace_id)s
    AND a.subject_id = {mission} AND a.subject_kind = 'mission' AND a.action = 'mission.execute_requested'
"""  # noqa: S608  # as above
