"""What every request shares; made in the app's lifespan."""

import asyncio
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from api.answers import Unsent
from api.bodies import Rooms
from api.claims import Claims
from api.gateway import Gateway
from api.heartbeats import Heartbeats
from api.ingest import Ingest
from api.keyring import KeyRing
from api.limiter import Limiter
from api.long_work import LongWork
from api.sse import Feed
from models.settings import Settings
from models.store.database import Database
from models.store.policies import PolicyBook


@dataclass(frozen=True)
class Services:
    """The process's one of each."""

    settings: Settings
    db: Database
    keys: KeyRing
    limiter: Limiter
    rooms: Rooms
    unsent: Unsent
    long_work: LongWork
    gateway: Gateway
    feed: Feed
    ingest: Ingest
    claims: Claims
    heartbeats: Heartbeats
    book: PolicyBook
    first_start: asyncio.Task[None]


def services(connection: HTTPConnection) -> Services:
    """Find them from a request."""
    shared: Services = connection.app.state.services
    return shared
