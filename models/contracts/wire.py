"""How names look on the wire: snake_case goes out, snake_case and camelCase come in (C-20)."""

from pydantic import AliasChoices, AliasGenerator
from pydantic.alias_generators import to_camel

BOTH_CASES = AliasGenerator(validation_alias=lambda name: AliasChoices(name, to_camel(name)))
"""For `ConfigDict(alias_generator=…)` of every model that a request body may hold."""
