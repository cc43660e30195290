"""Whether a model may be called whose price nobody knows (V-30): the policy says so, before it is called."""

from typing import Any
from uuid import uuid4

from api.auth import Call
from models.domain.actions import CALL_UNPRICED
from models.domain.errors import NotPermitted
from models.domain.policy import Act, Context, Outcome, Verdict
from models.domain.prices import Charge
from models.settings import Settings
from models.store import agents
from models.store.database import Database
from models.store.policies import PolicyBook


async def require_unpriced(
    db: Database, book: PolicyBook, call: Call, settings: Settings, run: dict[str, Any], asked: Charge
) -> None:
    """Let a run reserve for a model without a price only where the policy allows that.

    Raises:
        NotPermitted: `policy_denies`, or `policy_asks`, as nobody is asked about a single call.
    """
    verdict = await judge_unpriced(db, book, call, settings, run, asked, uuid4().hex)
    if verdict.outcome is not Outcome.ALLOW:
        told = f"{asked.usage.model!r} has no price, put it into config/prices.yaml"
        raise NotPermitted(verdict.refusal, f"{told}: {'; '.join(verdict.reasons)}")


async def judge_unpriced(
    db: Database, book: PolicyBook, call: Call, settings: Settings, run: dict[str, Any], asked: Charge, key: str
) -> Verdict:
    """Ask the policy about such a call, and keep what it says, once for each key; what was called already is paid."""
    context = Context(
        env=settings.env, usd=asked.usd, facts={"model": asked.usage.model or "", "run_id": run["run_id"]}
    )
    async with db.workspace(call.workspace_id) as session:
        doer = await agents.doer(session, call.principal, run["agent_id"])
        act = Act(action=CALL_UNPRICED, principal=doer.who, context=context)
        return (await book.judge(session, call.workspace_id, act, f"{run['run_id']}.unpriced.{key}"))[0]
