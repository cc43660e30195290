"""Bodies of the key routes."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.contracts.missions import Name
from models.domain.principals import SCOPES, SYSTEM_ACTORS, Kind, Role
from models.schemas.envelope import Body

Scope = Literal[SCOPES]  # type: ignore[valid-type]  # a closed list of the domain's
MAX_GRACE_HOURS = 168
"""A week, the longest that an old key may live on (requirements 5.2)."""


class KeyCreate(Body):
    """Gives a principal a key. Humans have a role; agents and services are gated by what they are."""

    principal: Name
    kind: Kind = Kind.HUMAN
    role: Role | None = None
    scopes: Annotated[tuple[Scope, ...], Field(max_length=len(SCOPES))] = ()
    expires_in_days: Annotated[float | None, Field(gt=0, le=3650, allow_inf_nan=False)] = None

    @property
    def stored_role(self) -> str:
        """The role as the table has it: an agent's or service's is its kind."""
        return self.role.value if self.role else self.kind.value

    @model_validator(mode="after")
    def _role_is_a_humans(self) -> "KeyCreate":
        if (self.role is None) is (self.kind is Kind.HUMAN):
            raise ValueError("a human's key needs a role, and no other has one")
        return self

    @model_validator(mode="after")
    def _is_no_part_of_ours(self) -> "KeyCreate":
        if self.principal in SYSTEM_ACTORS:
            raise ValueError(f"events name our own parts so; call the principal otherwise than {self.principal!r}")
        return self


class KeyRotate(Body):
    """Makes a key's successor; the old one goes on for so many hours."""

    grace_hours: Annotated[float, Field(ge=0, le=MAX_GRACE_HOURS, allow_inf_nan=False)] = 24


class KeyView(BaseModel):
    """A key, without its secret, which is kept nowhere. `hint` is how it begins."""

    model_config = ConfigDict(from_attributes=True)

    key_id: str
    hint: str
    principal: str
    kind: Kind
    role: str
    scopes: tuple[str, ...]
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    rotated_to: str | None
    last_used_at: datetime | None


class KeyMade(KeyView):
    """A new key with its secret, shown this once: a repetition under an Idempotency-Key does not show it again."""

    secret: str | None = None
