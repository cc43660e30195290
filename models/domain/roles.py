"""The roles by which agents take missions (C-31)."""

ALIASES = {"coding": "elite_coding_agent"}
"""Short words that agents say, and the roles that missions name."""


def roles_of(said: str) -> tuple[str, ...]:
    """List the roles that an agent of this role may stand in for: its own word, and what that is short for."""
    return tuple(dict.fromkeys((said, ALIASES.get(said, said))))


def shown_by(role: str) -> tuple[str, ...]:
    """List the words by which an agent's capabilities say that it has a role."""
    return (role, *(short for short, meant in ALIASES.items() if meant == role))
