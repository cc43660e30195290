"""Names that people and programs give to who and what acts: one spelling of each, and nothing that cannot be seen."""

import re
import unicodedata

MAX_ID = 256
"""Characters of the longest id of what events, alerts and questions are about."""
MAX_NAME = 128
MAX_TICKET = MAX_ID - 56
"""Of a ticket's name: the ids of its limit, and of the questions about that, put something around it."""
_UNSEEN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U00013441\U00013442\U0001d159\U000e0100-\U000e01ef]"
)
"""Letters, marks and symbols that show nothing: joiners, fillers, blanks, and selectors of variants."""
FIRST_START = "first-start"
"""Who makes what a new installation begins with."""
POLICY = "policy"
"""Who decides where no human is asked (V-12)."""
SYSTEM_NAMES = frozenset({FIRST_START, POLICY, "reconciler", "system", "worker"})
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


def is_seen(character: str) -> bool:
    """Whether a character shows something by itself: a letter, number, punctuation mark or symbol does, a mark not."""
    return unicodedata.category(character)[0] in "LNPS" and not _BLANK.match(character)


def spelt(text: str) -> str:
    """Spell a text so that its width, its composition and the spaces around it make no other (NFKC)."""
    return unicodedata.normalize("NFKC", text).strip()


def one_spelling(text: str) -> str:
    """Spell a name that says whom one means (NFKC), be there anybody of it or not.

    Raises:
        ValueError: nothing is left of it, or too much.
    """
    return _bounded(text, 2 * MAX_NAME)


def _bounded(text: str, most: int) -> str:
    name = spelt(text)
    if not 1 <= len(name) <= most:
        raise ValueError(_LENGTH.format(most))
    return name


_LENGTH = "a name has 1 to {} characters, and not only spaces"


def seen_name(text: str) -> str:
    """Give the one spelling of a name that is compared with others, as a tool's: nothing in it is hidden.

    Raises:
        ValueError: as of `one_spelling`, or it holds what cannot be seen.
    """
    name = one_spelling(text)
    if any(unicodedata.category(character) in _UNSEEN or _BLANK.match(character) for character in name):
        raise ValueError("a name holds no control, format, unassigned or blank characters")
    if not any(map(is_seen, name)):
        raise ValueError("a name shows a letter, number, punctuation mark or symbol at least")
    return name


def ticket_name(text: str) -> str:
    """Give the one spelling of the name of a ticket that may be new.

    Raises:
        ValueError: as of `path_name`, or it is longer.
    """
    return path_name(_bounded(text, MAX_TICKET))


def path_name(text: str) -> str:
    """Give the one spelling of a name that ids are made of and paths hold, as a ticket's.

    Raises:
        ValueError: as of `seen_name`, or no path could name it.
    """
    name = seen_name(text)
    if "/" in name or name in (".", ".."):
        raise ValueError("a name holds no slash, and is neither '.' nor '..': paths could not name it")
    return name


def clean_name(text: str) -> str:
    """Give the one spelling (NFKC) of the name of who acts.

    Raises:
        ValueError: as of `path_name` (a slash, too, tells a visitor's workspace from the visitor's name), or it is
            longer, or could be taken for another's.
    """
    if len(text) > 4 * MAX_NAME:  # before all of it is looked at: bodies bound no such name
        raise ValueError(_LENGTH.format(MAX_NAME))
    _bounded(text, MAX_NAME)
    name = path_name(text)
    if name.casefold() in SYSTEM_NAMES:
        raise ValueError(f"{name!r} is a part of Mission Control itself; take another name")
    if is_agent_id(name):
        raise ValueError(f"the name {name!r} is spelt like an agent's id; take another name")
    return name


def new_name(text: str) -> str:
    """Give the one spelling of the name of somebody who is new: who read `olga, peter` would believe in two people.

    Raises:
        ValueError: as of `clean_name`, or it could be taken for several.
    """
    name = clean_name(text)
    if "," in name:
        raise ValueError("a name holds no comma: lists put one between names")
    return name
