"""Names of principals, agents, workspaces and tickets as bodies, paths and parameters take them."""

from typing import Annotated

from pydantic import AfterValidator, Field

from models.contracts.missions import Name
from models.domain.names import MAX_TICKET, clean_name, new_name, path_name, ticket_name

CleanName = Annotated[str, AfterValidator(clean_name)]
"""NFKC-normalised, bounded, and visible in all its characters."""
NewName = Annotated[str, AfterValidator(new_name)]
"""The same of a principal or agent that may be new."""
TicketName = Annotated[Name, AfterValidator(path_name)]
"""The same of what others keep, whose tickets we only name: its ids and paths hold it."""
NewTicket = Annotated[str, Field(min_length=1, max_length=MAX_TICKET), AfterValidator(ticket_name)]
"""The same of a ticket that may be new."""
