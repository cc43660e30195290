"""Bodies of the routes of a browser's session."""

from typing import Annotated

from pydantic import Field

from models.domain.principals import Kind, Role
from models.schemas.envelope import Body


class SessionOpen(Body):
    """The key to exchange."""

    key: Annotated[str, Field(min_length=1, max_length=200, repr=False)]


class SessionView(Body):
    """Whom the cookie stands for."""

    principal: str
    workspace_id: str
    kind: Kind
    role: Role | None
