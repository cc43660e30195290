"""Bodies of the repository routes."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from models.domain import spellings
from models.domain.names import environment, path_name
from models.domain.repo_config import RepoConfig
from models.domain.repositories import check_ref_name
from models.schemas.envelope import Body

Branch = Annotated[str, AfterValidator(check_ref_name)]
RepositoryName = Annotated[
    str, Field(min_length=1, max_length=256, pattern=spellings.REPOSITORY), AfterValidator(path_name)
]
Environment = Annotated[
    str, Field(min_length=1, max_length=64, pattern=spellings.ENVIRONMENT), AfterValidator(environment)
]


class RepositoryCreate(Body):
    """Registers a repository. What `commands` says goes before the repository's own `.mission-control.yaml`."""

    url: Annotated[str, Field(min_length=1, max_length=2000)]
    name: RepositoryName | None = None
    target_branch: Branch = "main"
    protected: bool = False
    env: Annotated[Environment | None, Field(description="Of the installation (`MC_ENV`) where it is left out.")] = None
    commands: RepoConfig = RepoConfig()


class RepositoryView(BaseModel):
    """A registered repository."""

    model_config = ConfigDict(from_attributes=True)

    repository_id: str
    name: str
    url: str
    target_branch: str
    protected: bool
    env: str
    commands: dict[str, Any]
    created_by: str
    created_at: datetime
