"""Bodies of the key routes."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, model_validator

from models.domain.keys import KeyState
from models.domain.principals import SCOPES, Kind, Role
from models.domain.rates import MAX_RATE
from models.schemas.envelope import Body
from models.schemas.names import NewName

Scope = Literal[SCOPES]  # type: ignore[valid-type]  # a closed list of the domain's
Scopes = Annotated[
    tuple[Scope, ...], Field(max_length=len(SCOPES)), AfterValidator(lambda given: tuple(dict.fromkeys(given)))
]
"""Each once."""
MAX_GRACE_HOURS = 168
"""A week, the longest that an old key may live on (requirements 5.2)."""


class KeyCreate(Body):
    """Gives a principal a key, and makes the principal where there is none: a human of that role, an agent, a service.

    `rate_per_minute` is how many requests it may make; left out, as many as its owner's kind. A platform admin may give
    more.
    """

    principal: NewName
    kind: Kind | None = None
    role: Role | None = None
    scopes: Scopes = ()
    expires_in_days: Annotated[float | None, Field(gt=0, le=3650, allow_inf_nan=False)] = None
    rate_per_minute: Annotated[int | None, Field(ge=1, le=MAX_RATE)] = None

    @model_validator(mode="after")
    def _role_is_a_humans(self) -> "KeyCreate":
        if self.role is not None and self.kind not in (None, Kind.HUMAN):
            raise ValueError("a human has a role, and no other")
        return self


class KeyRotate(Body):
    """Makes a key's successor; the old one goes on for so many hours."""

    grace_hours: Annotated[float, Field(ge=0, le=MAX_GRACE_HOURS, allow_inf_nan=False)] = 24


class KeyView(BaseModel):
    """A key, without its secret, which is kept nowhere. `hint` is how it begins."""

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
    rate_per_minute: int | None = Field(description="Its own number of requests a minute; null: that of its kind.")
    last_used_at: datetime | None
    state: KeyState = Field(description="active, grace (its successor is there), expired or revoked.")


class KeyMade(KeyView):
    """A new key with its secret, shown this once: a repetition under an Idempotency-Key does not show it again."""

    secret: str | None = None
