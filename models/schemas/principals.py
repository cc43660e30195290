"""Bodies of the routes about principals and members."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, model_validator

from models.domain.principals import Kind, Role
from models.schemas.envelope import Body
from models.schemas.names import NewName


class PrincipalCreate(Body):
    """Adds a principal. Humans have a role; agents and services are gated by what they are."""

    name: NewName
    kind: Kind = Kind.HUMAN
    role: Role | None = None

    @model_validator(mode="after")
    def _role_is_a_humans(self) -> "PrincipalCreate":
        if (self.role is None) is (self.kind is Kind.HUMAN):
            raise ValueError("a human needs a role, and no other has one")
        return self


class PrincipalView(BaseModel):
    """Who acts, or acted, in the workspace."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    kind: Kind
    role: str
    created_by: str
    created_at: datetime
    deactivated_at: datetime | None


class MemberPut(Body):
    """The role that a human has in the workspace from now on."""

    role: Role
