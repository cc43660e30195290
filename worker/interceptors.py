"""Around every activity: log lines say whose it is, and errors cross Temporal as what they are."""

from typing import Any

import structlog
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
from structlog.contextvars import bound_contextvars
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory, FailureError
from temporalio.service import RPCError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from models.domain.errors import MissionControlError

log = structlog.get_logger()

MAX_MESSAGE = 4_000
"""Characters: a failure is a payload, and payloads stay small."""

MAX_TRIES_OF_A_BUG = 10
"""A mistake of ours may pass by itself (a race); one that does not must not hold a mission for ever."""

_AWAY = (SQLAlchemyError, OSError, RPCError, FailureError)
"""What comes of servers, disks and networks that are away: they come back, so it is tried until they do."""
_OURS = (DataError, IntegrityError)
"""What Postgres refuses because of what we sent."""


class AroundActivities(Interceptor):
    """Wraps every activity."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Put the wrapping around the activity."""
        return _Around(next)


class _Around(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info = activity.info()
        with bound_contextvars(workflow_id=info.workflow_id, activity=info.activity_type, attempt=info.attempt):
            try:
                return await self.next.execute_activity(input)
            except MissionControlError as error:
                raise _refused(error) from error
            except Exception as error:
                if is_bug(error):
                    log.exception("activity_broke", error=type(error).__name__)
                    if info.attempt >= MAX_TRIES_OF_A_BUG:
                        raise _given_up(info, error) from None
                if isinstance(error, SQLAlchemyError):
                    raise _without_sql(info, error) from None
                raise


def _refused(error: MissionControlError) -> ApplicationError:
    """Carry an error across Temporal. What was to be expected is one line here; the SDK tells the rest as warnings."""
    expected = error.status < 500
    if expected:
        log.info("activity_refused", code=error.code, reason=error.message)
    return ApplicationError(
        error.message[:MAX_MESSAGE],
        type=error.code,
        non_retryable=not error.retryable,
        category=ApplicationErrorCategory.BENIGN if expected else ApplicationErrorCategory.UNSPECIFIED,
    )


def _given_up(info: activity.Info, error: Exception) -> ApplicationError:
    message = f"{info.activity_type} broke {info.attempt} times with {type(error).__name__}; the worker's log says more"
    return ApplicationError(message, type="internal_error", non_retryable=True)


def _without_sql(info: activity.Info, error: SQLAlchemyError) -> ApplicationError:
    """Tell of an error of the database without its statement: what crosses Temporal may become a mission's reason."""
    log.warning("database_failed", error=str(error))
    kind = type(error).__name__
    return ApplicationError(
        f"{info.activity_type}: the database failed with {kind}; the worker's log says more", type=kind
    )


def is_bug(error: Exception) -> bool:
    """Whether an error is our own mistake, which no returning server mends."""
    return isinstance(error, _OURS) or not isinstance(error, _AWAY)
