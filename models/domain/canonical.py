"""One byte form for anything that is hashed or signed."""

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> bytes:
    """Encode JSON data so that equal values give equal bytes: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_digest(data: bytes) -> str:
    """Name bytes by content, in the form `sha256:<64 hex digits>` used everywhere a digest is shown."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_of(value: Any) -> str:
    """Digest JSON data by its canonical form."""
    return sha256_digest(canonical_json(value))
