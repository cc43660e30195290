"""What arrives: JSON that Postgres can keep, and query names in either case."""

import json
import math
import re
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlencode

from pydantic.alias_generators import to_snake

from models.domain.errors import InvalidInput

_SUSPECT = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
"""Escapes that may hide a NUL or half of a surrogate pair; a body without them need not be searched."""


_PROSE = bytes(set(range(256)) - set(b",:[{"))
"""All that is not between values, or begins some."""
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
"""A string of JSON; one without an end goes up to that of the body, so that none is looked through twice."""


def require_few_values(body: bytes, most: int) -> None:
    """Refuse a body of very many values before it is read.

    Raises:
        InvalidInput: `too_many_values`.
    """
    if len(body.translate(None, _PROSE)) <= most:
        return
    quotes = body.count(b'"') - body.count(b'\\"')  # of those within a string each stands behind a backslash
    if quotes > 4 * most or len(_STRING.sub(b"", body).translate(None, _PROSE)) > most:
        raise InvalidInput("too_many_values", f"the body holds more than {most} values; send less at once")


def parse_json(body: bytes, rounded: set[float]) -> Any:
    """Read a request body; those numbers of which Python keeps not all digits are `rounded`.

    Raises:
        InvalidInput: it is not JSON, repeats a key in an object, or holds what no column can: NaN, Infinity, NUL
            characters, lone surrogates.
    """
    try:
        value = json.loads(
            body,
            parse_constant=_refuse_constant,
            parse_float=partial(_finite, rounded=rounded),
            object_pairs_hook=_without_repeats,
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidInput("malformed_json", f"the body is not valid JSON: {error.msg} at {where}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput("malformed_json", "the body is not valid JSON: it is not UTF-8") from error
    except (RecursionError, ValueError) as error:
        raise InvalidInput("malformed_json", "the body nests too deep, or holds a number that is too long") from error
    if _SUSPECT.search(body):
        _require_storable(value)
    return value


def require_text(value: str, where: str) -> None:
    """Refuse text that Postgres cannot keep; it would be our error, and it is the caller's."""
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidInput("invalid_input", f"{where} holds a NUL character or half of a surrogate pair; remove it")


def snake_query(query: bytes) -> bytes:
    """Spell the parameters' names in snake_case."""
    if not query or query.islower():
        return query
    pairs = parse_qsl(query.decode(errors="surrogateescape"), keep_blank_values=True, errors="surrogateescape")
    return urlencode([(to_snake(name), value) for name, value in pairs], errors="surrogateescape").encode()


def _refuse_constant(name: str) -> float:
    raise InvalidInput("invalid_input", f"{name} is no number in JSON; send a finite one, or null")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object; of a key that stands twice, readers take one or the other, and never both."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidInput("repeated_key", "an object in the body holds a key twice; send each once")
    return found


def _finite(text: str, rounded: set[float]) -> float:
    if math.isinf(value := float(text)):
        raise InvalidInput("invalid_input", f"{text} is larger than any number we can keep")
    if (len(text) > _SURE or not value) and not _is_exact(text, value):
        rounded.add(value)
    return value


_SURE = 16
"""Characters of a number with a point or an exponent whose digits, at most 15, are always kept."""


def _is_exact(text: str, value: float) -> bool:
    try:
        return Decimal(text) == Decimal(str(value))
    except InvalidOperation:  # an exponent that no decimal has
        return False


def _require_storable(value: Any) -> None:
    if isinstance(value, str):
        require_text(value, "a text of the body")
    elif isinstance(value, list):
        for item in value:
            _require_storable(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            require_text(name, "a key of the body")
            _require_storable(item)
