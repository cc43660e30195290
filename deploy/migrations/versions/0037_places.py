"""A repository keeps its place: the same for all spellings of its URL (`models.domain.repositories.place_of`)."""

from alembic import op

from models.domain.errors import InvalidInput
from models.domain.repositories import place_of

revision = "0037"
down_revision = "0036"


def upgrade() -> None:
    """Name the place of each; several that are one repository stay, and missions get the strictest of them."""
    cursor = op.get_bind().connection.cursor()
    cursor.execute("SET ROLE mission_control_owner; ALTER TABLE repository ADD COLUMN place text")
    cursor.execute("SELECT DISTINCT url FROM repository")
    places = [(_place(url), url) for (url,) in cursor.fetchall()]
    cursor.executemany("UPDATE repository SET place = %s WHERE url = %s", places)
    cursor.execute(
        "ALTER TABLE repository ALTER COLUMN place SET NOT NULL;"
        "CREATE INDEX repository_place ON repository (place); RESET ROLE"
    )


def downgrade() -> None:
    """Compare what is written again."""
    op.execute("SET ROLE mission_control_owner; ALTER TABLE repository DROP COLUMN place; RESET ROLE")


def _place(url: str) -> str:
    """A URL that may not be used any more is a place of its own."""
    try:
        return place_of(url)
    except InvalidInput:
        return url
