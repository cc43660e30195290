"""Carries our errors across Temporal: the code becomes the type, and says whether another try can help."""

from typing import Any

from temporalio.exceptions import ApplicationError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from models.domain.errors import MissionControlError

MAX_MESSAGE = 4_000
"""Characters: a failure is a payload, and payloads stay small."""


class ErrorTranslator(Interceptor):
    """Wraps every activity."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Put the translation around the activity."""
        return _Translate(next)


class _Translate(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        try:
            return await self.next.execute_activity(input)
        except MissionControlError as error:
            raise ApplicationError(
                error.message[:MAX_MESSAGE], type=error.code, non_retryable=not error.retryable
            ) from error
