"""Timeouts and retries of every activity, named by intent.

A worker that is killed is noticed when its heartbeats stop: 5 s after the last one. Whoever waits for a dead *host*
learns it when nobody takes the task from that host's queue: 6 s. Both together keep the promise that a mission goes on
within 15 s on another host.
"""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityCancellationType, ActivityConfig, LocalActivityConfig

from workflows.queues import workbench_queue

HEARTBEAT = timedelta(seconds=5)
HOST_ANSWERS = timedelta(seconds=6)

GIT_LASTS = timedelta(hours=1)
COMMANDS_LAST = timedelta(days=7)
"""Far bounds: heartbeats tell of the dead, git's transfers (15 min) and commands (24 h at most) have limits of their
own that name what was too slow. A nearer bound would begin a slow stage anew for ever."""

_RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=300),
    backoff_coefficient=2,
    maximum_interval=timedelta(seconds=2),
)
"""Servers come back: retry for ever, never more than 2 s apart. The mission's own failures are answers, not errors."""

RECORD = LocalActivityConfig(
    start_to_close_timeout=timedelta(seconds=10),  # transactions are cut at 5 s
    retry_policy=_RETRY,
    local_retry_threshold=timedelta(seconds=5),
)

CONTROL_CALL = ActivityConfig(
    start_to_close_timeout=timedelta(seconds=30),
    heartbeat_timeout=HEARTBEAT,
    retry_policy=_RETRY,
)


ONE_PASS = ActivityConfig(
    start_to_close_timeout=timedelta(minutes=1),
    heartbeat_timeout=HEARTBEAT,
    retry_policy=RetryPolicy(maximum_attempts=2),  # the schedule starts the next pass anyway
)


def shared_git() -> ActivityConfig:
    """Git on whichever host takes it."""
    return ActivityConfig(
        task_queue=workbench_queue(workflow.info().task_queue),
        start_to_close_timeout=GIT_LASTS,
        heartbeat_timeout=HEARTBEAT,
        retry_policy=_RETRY,
        cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    )


def shared_commands() -> ActivityConfig:
    """Git and a repository's commands on whichever host takes them."""
    return shared_git() | ActivityConfig(start_to_close_timeout=COMMANDS_LAST)


def host_git(queue: str) -> ActivityConfig:
    """Git on the host that holds the worktree."""
    return ActivityConfig(
        task_queue=queue,
        schedule_to_start_timeout=HOST_ANSWERS,
        start_to_close_timeout=GIT_LASTS,
        heartbeat_timeout=HEARTBEAT,
        retry_policy=_RETRY,
        cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    )


def host_commands(queue: str) -> ActivityConfig:
    """Set-up, tests and stress runs: each command has its own limit, and they wait for each other."""
    return host_git(queue) | ActivityConfig(start_to_close_timeout=COMMANDS_LAST)


def clearing(queue: str) -> ActivityConfig:
    """Giving a workbench back: nobody waits long for it, because the reconciler asks again."""
    return host_git(queue) | ActivityConfig(schedule_to_close_timeout=HOST_ANSWERS + timedelta(minutes=1))
