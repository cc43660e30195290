"""Changes of what workflows ask for: each is guarded, so that those which an older version began keep to its way."""

from enum import StrEnum, unique


@unique
class Patch(StrEnum):
    """The name of a change, as histories keep it: `<workflow>-<change>-v<number>`."""

    LOOKS_FOR_NEWS = "mission-looks-for-news-v1"
