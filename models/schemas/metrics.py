"""Bodies of the metrics routes."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Discriminator, Field, RootModel, Tag

from models.contracts.missions import Name
from models.domain.metrics import Comparator, Finite
from models.schemas.envelope import VARIANT, Body, Bounds

MAX_BATCH = 1000


class ObservationCreate(Body):
    """One sample. Without a time it was taken now."""

    metric_id: Name
    value: Finite
    at: AwareDatetime | None = None
    mission_id: Name | None = None


class ObservationBatch(Body):
    """Many samples at once: all are kept, or none."""

    observations: Annotated[tuple[ObservationCreate, ...], Field(min_length=1, max_length=MAX_BATCH)]


def _shape(sent: object) -> str:
    return _MANY if isinstance(sent, dict) and "observations" in sent else _ONE


_ONE, _MANY = f"{VARIANT}one", f"{VARIANT}many"


class Observations(
    RootModel[
        Annotated[
            Annotated[ObservationBatch, Tag(_MANY)] | Annotated[ObservationCreate, Tag(_ONE)], Discriminator(_shape)
        ]
    ]
):
    """One sample, or many at once."""

    bounds: ClassVar[Bounds] = Bounds(values=50_000)

    @property
    def samples(self) -> tuple[ObservationCreate, ...]:
        """All of them."""
        return self.root.observations if isinstance(self.root, ObservationBatch) else (self.root,)


class ObservationsAccepted(BaseModel):
    """The ids under which the samples are kept, in the order in which they came."""

    accepted: int
    observation_ids: tuple[str, ...]


class ObservationView(BaseModel):
    """A stored sample. One with a phase is the copy that a stage of its mission judged by (MISS-16)."""

    model_config = ConfigDict(from_attributes=True)

    observation_id: str
    metric_id: str
    value: float
    at: datetime
    mission_id: str | None
    phase: Literal["before_merge", "after_merge"] | None
    source: str


class CatalogMetric(BaseModel):
    """A metric the operator set a bound for."""

    metric_id: str
    target: float
    comparator: Comparator
    unit: str
