"""Missions hear at once that a limit blocks one of their runs, or does so no more; else the reconciler tells them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated

from fastapi import Depends, Request, Response
from sqlalchemy.exc import SQLAlchemyError
from starlette.background import BackgroundTask

from api.auth import Call
from api.gateway import Gateway
from api.services import services
from models.domain.errors import Conflict, MissionControlError
from models.store import blocks
from models.store.database import Database


class Blocks:
    """The caller's workspace, as far as limits hold its missions."""

    def __init__(self, db: Database, gateway: Gateway, workspace_id: str) -> None:
        self._db, self._gateway, self._workspace_id = db, gateway, workspace_id

    @asynccontextmanager
    async def hear_of_refusal(self) -> AsyncIterator[None]:
        """Tell them where the block refuses money, too: a refusal leaves no answer behind which it could be done."""
        try:
            yield
        except Conflict as refused:
            if refused.code == "budget_exceeded":
                await self.tell()
            raise

    async def tell(self) -> None:
        """Tell the missions whose runs were blocked, or go on; what cannot be told now is told by the reconciler."""
        with suppress(MissionControlError, SQLAlchemyError, OSError):
            async with self._db.workspace(self._workspace_id) as session:
                due = await blocks.to_tell(session, self._workspace_id)
            for workspace_id, mission_id in due:
                await self._gateway.runs_changed(workspace_id, mission_id)


def told(response: Response, missions: Blocks) -> Response:
    """Answer first, and tell them then."""
    response.background = BackgroundTask(missions.tell)
    return response


async def _blocks(request: Request) -> Blocks:
    call: Call = request.state.call
    return Blocks(services(request).db, services(request).gateway, call.workspace_id)


ToMissions = Annotated[Blocks, Depends(_blocks)]
"""For what blocks runs, or lets them go on."""
