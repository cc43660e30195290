"""Whether a model may be called whose price nobody knows (V-30): the policy says so, before it is called."""

from dataclasses import dataclass
from typing import Annotated, Any
from uuid import uuid4

from fastapi import Depends, Request

from api.auth import Call
from api.services import Services, services
from models.domain.actions import CALL_UNPRICED
from models.domain.errors import NotPermitted
from models.domain.policy import Act, Context, Outcome, Verdict
from models.domain.prices import Charge
from models.store import agents


@dataclass(frozen=True)
class Unpriced:
    """The policy of the caller's workspace, as far as it is about such models."""

    services: Services
    call: Call

    async def require(self, run: dict[str, Any], asked: Charge) -> None:
        """Let a run reserve for a model without a price only where the policy allows that.

        Raises:
            NotPermitted: `policy_denies`, or `policy_asks`, as nobody is asked about a single call.
        """
        if not asked.unpriced:
            return
        verdict = await self._judge(run, asked, uuid4().hex)
        if verdict.outcome is not Outcome.ALLOW:
            told = f"{asked.usage.model!r} has no price, put it into config/prices.yaml"
            raise NotPermitted(verdict.refusal, f"{told}: {'; '.join(verdict.reasons)}")

    async def note(self, run: dict[str, Any], paid: Charge, cost_id: str) -> None:
        """Keep what the policy says of such a call that was made, once for each cost: it is paid whatever that is."""
        if paid.unpriced:
            await self._judge(run, paid, cost_id)

    async def _judge(self, run: dict[str, Any], asked: Charge, key: str) -> Verdict:
        facts = {"model": asked.usage.model or "", "run_id": run["run_id"]}
        context = Context(env=self.services.settings.env, usd=asked.usd, facts=facts)
        workspace_id = self.call.workspace_id
        async with self.services.db.workspace(workspace_id) as session:
            doer = await agents.doer(session, self.call.principal, run["agent_id"])
            act = Act(action=CALL_UNPRICED, principal=doer.who, context=context)
            name = f"{run['run_id']}.unpriced.{key}"
            return (await self.services.book.judge(session, workspace_id, act, name))[0]


async def _unpriced(request: Request) -> Unpriced:
    return Unpriced(services(request), request.state.call)


UnpricedModels = Annotated[Unpriced, Depends(_unpriced)]
"""For what models without a price cost."""
