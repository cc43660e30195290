"""What a row of the audit log commits to, and the lines of its export."""

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from models.domain.merkle import leaf_hash

COMMITTED = (
    "workspace_id",
    "seq",
    "id",
    "epoch",
    "xid",
    "at",
    "actor",
    "actor_kind",
    "action",
    "subject_kind",
    "subject_id",
    "correlation_id",
    "git_sha",
    "config_hash",
    "digest",
)
"""What a leaf is made of. `seq` counts a workspace's rows, so that none can be left out between two others."""


class Line(StrEnum):
    """The kinds of lines in an export."""

    LOG = "log"
    """The first: which log, which workspace, how many leaves."""
    ROW = "row"
    """A sealed row, in the order of the tree."""
    MISSING = "missing"
    """A leaf of the workspace whose row is gone."""
    HIDDEN = "hidden"
    """The hash of leaves of other workspaces."""
    CHECKPOINT = "checkpoint"
    """A signed note over all leaves before it."""
    COUNT = "count"
    """How many rows the workspace has up to the last checkpoint, and the proof that this was signed."""
    UNSEALED = "unsealed"
    """A row without a leaf, after all others."""
    END = "end"
    """The last: an export without it was cut off."""


_PARTS = (
    (Line.LOG,),
    (Line.ROW, Line.MISSING, Line.HIDDEN, Line.CHECKPOINT),
    (Line.COUNT,),
    (Line.UNSEALED,),
    (Line.END,),
)
PART_OF = {kind: number for number, part in enumerate(_PARTS) for kind in part}
"""An export's parts, each behind the one before: which of them a line belongs to."""
SALT_BYTES = 32
"""How long a row's salt is. Into one of any length a part of the content could be moved, and nobody would see."""

_OF_ROW = {"kind", *COMMITTED, "salt", "content"}
FIELDS: dict[Line, frozenset[str]] = {
    Line.LOG: frozenset({"kind", "origin", "workspace_id", "leaves"}),
    Line.ROW: frozenset({*_OF_ROW, "index", "leaf"}),
    Line.MISSING: frozenset({"kind", "index", "id"}),
    Line.HIDDEN: frozenset({"kind", "level", "index", "hash"}),
    Line.CHECKPOINT: frozenset({"kind", "note", "epoch", "xid", "id"}),
    Line.COUNT: frozenset({"kind", "rows", "salt", "index", "hashes"}),
    Line.UNSEALED: frozenset(_OF_ROW),
    Line.END: frozenset({"kind"}),
}
"""All that a line may hold: nothing proves what else it says."""


def raw(spelt: str) -> bytes:
    """Read what is written in hex, in the one way that an export writes it.

    Raises:
        ValueError: it is none, or written otherwise, as with spaces.
    """
    found = bytes.fromhex(spelt)
    if found.hex() != spelt:
        raise ValueError("hex digits are small, and nothing stands between or around them")
    return found


def leaf_of(row: Mapping[str, Any]) -> bytes:
    """Hash what a sealed row commits to. `mc_audit_leaf` says the same in SQL.

    Raises:
        KeyError: something of it is not there.
    """
    return leaf_hash(json.dumps([row[name] for name in COMMITTED], ensure_ascii=False).encode())


def content_digest(salt: bytes, content: str) -> bytes:
    """Digest what a row says; without the salt nobody can try out what it might be."""
    return hashlib.sha256(salt + content.encode()).digest()


def place_of(row: Mapping[str, Any]) -> tuple[int, int, int]:
    """Give a row's place in the order of facts."""
    return int(row["epoch"]), int(row["xid"]), int(row["id"])
