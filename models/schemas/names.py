"""Names of principals, agents and workspaces as bodies and paths take them."""

from typing import Annotated

from pydantic import AfterValidator

from models.domain.names import clean_name

CleanName = Annotated[str, AfterValidator(clean_name)]
"""NFKC-normalised, bounded, and visible in all its characters."""
