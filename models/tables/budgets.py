"""Runs and what they cost: limits, the counters that hold them, and the ledger."""

from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, Integer, Numeric, text
from sqlmodel import Field

from models.tables.base import SQLModel, Time, big, key, names, no, now, time


def _usd(*, nullable: bool = False) -> Any:
    """Declare an exact amount of dollars."""
    return Field(default=None, sa_type=Numeric, nullable=nullable)


def _nothing(kind: Any) -> Any:
    """Declare a counter, which begins at nothing."""
    return Field(default=0, sa_type=kind, nullable=False, sa_column_kwargs={"server_default": text("0")})


class Run(SQLModel, table=True):
    """One execution that costs something (requirements 4.11). It runs while it has no status; a blocked one waits."""

    workspace_id: str = key(foreign_key="workspace.workspace_id")
    run_id: str = key()
    agent_id: str | None = None
    level: str | None = None
    ticket_id: str | None = None
    category: str | None = None
    mission_id: str | None = None
    status: str | None = None
    reason: str | None = None
    blocked_by: str | None = None
    blocked_period: str | None = None
    created_by: str
    started_at: Time = now()
    ended_at: Time | None = time()


class ToolCall(SQLModel, table=True):
    """A tool that a run wants to call or has called, what was said of that, and the error where it failed.

    `refused` says why it was not even judged; `digest` names the tool and its arguments.
    """

    __tablename__ = "tool_call"
    __table_args__ = (*names("run", "run_id"), *names("verdict", "verdict_id"), *names("decision", "decision_id"))

    workspace_id: str = key()
    run_id: str = key()
    number: int = key()
    tool: str
    digest: str | None = None
    refused: str | None = None
    verdict_id: str | None = None
    decision_id: str | None = None
    error: str | None = None
    duration_ms: int | None = None
    cost_id: str | None = None
    at: Time = now()
    ended_at: Time | None = time()


class BudgetLimit(SQLModel, table=True):
    """A cap that an admin set; where none is set, the default of `models.domain.budgets` holds.

    `usd_of_level`: its dollars are those of the agent's level, and `cap_usd` what they were when it was set.
    """

    __tablename__ = "budget_limit"

    workspace_id: str = key(foreign_key="workspace.workspace_id")
    scope: str = key()
    owner: str = key()
    name: str = key()
    cap_usd: Decimal | None = _usd(nullable=True)
    cap_tokens: int | None = Field(default=None, sa_type=BigInteger)
    usd_of_level: bool = no()
    set_by: str
    set_at: Time = now()


class Budget(SQLModel, table=True):
    """What one run, ticket, agent's day or workspace's month may spend, has spent and has promised to spend.

    `reservations` are the open ones, also of free calls, and `finished_at` is when one was settled or released last.
    Once `crossed`, nothing more is granted until the cap is raised; a new window has a row of its own. `denied` says by
    whom and why it was not.
    """

    workspace_id: str = key(foreign_key="workspace.workspace_id")
    scope: str = key()
    subject: str = key()
    period: str = key()
    agent_id: str | None = None
    kind: str | None = None
    cap_usd: Decimal | None = _usd(nullable=True)
    cap_tokens: int | None = Field(default=None, sa_type=BigInteger)
    settled_usd: Decimal = _nothing(Numeric)
    reserved_usd: Decimal = _nothing(Numeric)
    settled_tokens: int = _nothing(BigInteger)
    reserved_tokens: int = _nothing(BigInteger)
    reservations: int = _nothing(Integer)
    calls: int = _nothing(BigInteger)
    crossed: bool = no()
    crossings: int = Field(default=0, sa_column_kwargs={"server_default": text("0")})
    denied: str | None = None
    finished_at: Time | None = time()


class OpenReservation(SQLModel, table=True):
    """What a run has reserved until a time, for as long as that is neither settled nor released."""

    __tablename__ = "open_reservation"

    workspace_id: str = key()
    run_id: str = key()
    cost_id: str = key()
    held_until: Time = time(nullable=False)


class Entry(SQLModel, table=True):
    """A row of the ledger, which is only added to. `day` and `month` are the windows that it is charged to."""

    __tablename__ = "ledger"

    workspace_id: str = key()
    run_id: str = key()
    cost_id: str = key()
    kind: str = key()
    agent_id: str | None = None
    ticket_id: str | None = None
    mission_id: str | None = None
    model: str | None = None
    tokens_in: int = big()
    tokens_out: int = big()
    calls: int = big()
    usd: Decimal = _usd()
    unpriced: bool = no()
    overrun: bool = no()
    holder: str
    held_until: Time | None = time()
    reason: str | None = None
    day: str
    month: str
    at: Time = now()
