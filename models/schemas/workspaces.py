"""Bodies of the workspace routes."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from models.domain import spellings
from models.domain.budgets import TokenCap
from models.schemas.envelope import Body
from models.schemas.names import CleanName

Statement = Annotated[str, Field(max_length=2000)]
Emoji = Annotated[str, Field(max_length=16)]
Color = Annotated[str, Field(pattern=spellings.COLOR)]


class WorkspaceCreate(Body):
    """Makes a workspace (WORKSPACE-01). The slug is its id, for good."""

    slug: Annotated[str, Field(pattern=spellings.SLUG)]
    name: CleanName
    mission_statement: Statement = ""
    emoji: Emoji = ""
    color: Color = ""


class WorkspaceChange(Body):
    """Changes how a workspace is shown; what is left out stays."""

    name: CleanName | None = None
    mission_statement: Statement | None = None
    emoji: Emoji | None = None
    color: Color | None = None


class WorkspaceBudget(Body):
    """Sets how many tokens a workspace may use in a month (WORKSPACE-03); null is no limit."""

    cap_tokens: TokenCap | None


class WorkspaceView(BaseModel):
    """An independent team."""

    model_config = ConfigDict(from_attributes=True)

    workspace_id: str
    slug: str
    name: str
    mission_statement: str
    emoji: str
    color: str
    created_at: datetime


class WorkspaceMade(WorkspaceView):
    """A new workspace, with its founder's key to it, shown this once."""

    key_id: str
    secret: str | None = Field(description="Null in the answer to a repetition: it is kept nowhere.")
