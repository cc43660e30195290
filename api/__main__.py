"""`python -m api`: serves the API until told to stop."""

import socket
import sys

import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.heads import BoundedHeads
from api.services import Services
from models.domain.errors import MissionControlError
from models.leaving import leave_after
from models.observability import configure_logging
from models.settings import Settings

STOP_SECONDS = 5
"""How long requests that run may go on after a stop was asked for."""


class Server(uvicorn.Server):
    """uvicorn waits for all answers to end before it stops; event streams end only when told to."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def on_tick(self, counter: int) -> bool:
        """Stop also when the first start has failed: what it needs only people can bring."""
        return await super().on_tick(counter) or self.failure is not None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then everything else."""
        if self._services:
            self._services.feed.end_streams()
        await super().shutdown(sockets)

    @property
    def failure(self) -> BaseException | None:
        """Why the first start failed, if it did."""
        task = self._services.first_start if self._services else None
        return task.exception() if task and task.done() and not task.cancelled() else None

    @property
    def _services(self) -> Services | None:
        return getattr(self._app.state, "services", None)


def main(settings: Settings) -> None:
    """Serve at `MC_API_HOST` and `MC_API_PORT`.

    Raises:
        MissionControlError: the first start can never succeed.
    """
    configure_logging(settings)
    settings.database_doors()  # the server would tell of a missing one by a traceback
    app = create_app(settings)
    server = Server(configured(app, settings), app)
    server.run()
    if server.failure:
        raise server.failure


def configured(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Say how to serve. Unlike uvicorn by itself, we believe no proxy that nobody named, not even on this machine."""
    return uvicorn.Config(
        app,
        host=settings.api_host,
        port=settings.api_port,
        loop="uvloop",
        http=BoundedHeads,
        log_config=None,
        access_log=False,
        server_header=False,
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=STOP_SECONDS,
    )


def _serve() -> None:
    try:
        main(Settings())
    except MissionControlError as error:
        sys.exit(f"{error.code}: {error.message}")


if __name__ == "__main__":
    leave_after(_serve)
