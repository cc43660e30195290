"""Names that people and programs give to who and what acts: one spelling of each, and nothing that cannot be seen."""

import re
import unicodedata

MAX_NAME = 128
_UNSEEN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
SYSTEM_NAMES = frozenset({"first-start", "policy", "reconciler", "system", "worker"})
"""Who the product's own parts are in events and decisions: nobody else may be called so."""
STRANGERS = "(unknown)/"
"""Before the name of whoever acts without a key, as a visitor's workspace is: none is called so."""
PRODUCTION = "prod"
_LIKE_AN_AGENT_ID = re.compile("agent_[0-9a-f]{16}")
"""Paths name an agent by its id or its name: what says one must never say the other of another agent."""


def is_agent_id(text: str) -> bool:
    """Whether a text is spelt like the id of an agent; no name is."""
    return _LIKE_AN_AGENT_ID.fullmatch(text.casefold()) is not None


def alike(text: str) -> str:
    """Spell a name as policies compare it: its letters' case, its width and the spaces around it make no other."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).strip()


def environment(text: str) -> str:
    """Give the one name of an environment; production has several (POL-08)."""
    name = alike(text)
    return PRODUCTION if name == "production" else name


def one_spelling(text: str) -> str:
    """Spell a name that says whom one means (NFKC), be there anybody of it or not.

    Raises:
        ValueError: nothing is left of it, or too much.
    """
    name = unicodedata.normalize("NFKC", text).strip()
    if not 1 <= len(name) <= 2 * MAX_NAME:
        raise ValueError(f"a name has 1 to {2 * MAX_NAME} characters, and not only spaces")
    return name


def clean_name(text: str) -> str:
    """Give the one spelling (NFKC) of a name.

    Raises:
        ValueError: it is empty, too long, holds what cannot be seen, or could be taken for another's.
    """
    if len(text) > 4 * MAX_NAME:
        raise ValueError(f"a name has at most {MAX_NAME} characters")
    name = unicodedata.normalize("NFKC", text).strip()
    if not 1 <= len(name) <= MAX_NAME:
        raise ValueError(f"a name has 1 to {MAX_NAME} characters, and not only spaces")
    if any(unicodedata.category(character) in _UNSEEN for character in name):
        raise ValueError("a name holds no control, format or unassigned characters")
    if "/" in name:
        raise ValueError("a name holds no slash: it tells a visitor's workspace from the visitor's name")
    if name.casefold() in SYSTEM_NAMES:
        raise ValueError(f"{name!r} is a part of Mission Control itself; take another name")
    if is_agent_id(name):
        raise ValueError(f"the name {name!r} is spelt like an agent's id; take another name")
    return name
