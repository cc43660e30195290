"""Reads small YAML files that operators write, so that no input is expensive and every error names its place."""

import json
import re
from collections.abc import Hashable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar, get_args
from unicodedata import category

import yaml
from pydantic import BaseModel, ValidationError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from models.domain.errors import InvalidInput
from models.domain.wording import plain

MAX_BYTES = 64 * 1024
_MAX_DEPTH = 12
_SHOWN = 5
"""So many problems of a file are said at once."""
_NONSENSE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What PyYAML raises of values that are not what their tags say."""

_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_MISREAD = re.compile(r"[-+]?(0[0-9_box]|.*:)")
"""YAML 1.1 takes 010 for eight, and 1:30 for ninety."""

M = TypeVar("M", bound=BaseModel)


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader without what makes YAML dangerous or ambiguous: aliases (bombs), deep nesting, repeated
    keys, and characters that no text column takes and no terminal should.
    """

    _depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        """Refuse an alias and a node too deep, before anything is built from them."""
        event = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave it untyped
        if isinstance(event, yaml.AliasEvent):
            raise _refusal("aliases (*name) are not supported", event)
        if self._depth >= _MAX_DEPTH:
            raise _refusal("it is nested too deeply", event)
        self._depth += 1
        node: Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        """Name the place of a value that is not what its tag says."""
        try:
            return super().construct_object(node, deep)
        except _NONSENSE as error:
            raise _refusal(f"a value cannot be read ({type(error).__name__})", node) from None

    def construct_scalar(self, node: ScalarNode | MappingNode) -> Any:
        """Refuse control characters, which double quotes can spell."""
        value = super().construct_scalar(node)
        if odd := next((char for char in str(value) if category(char) in ("Cc", "Cs") and char not in "\t\n\r"), None):
            raise _refusal(f"the character U+{ord(odd):04X} may not stand here", node)
        return value

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse a key given twice: the later value would silently win."""
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, MappingNode) else ():
            if not isinstance(key, ScalarNode):
                raise _refusal("a key must be plain text", key)
            if key.value in seen:
                raise _refusal(f"{key.value!r} is given twice", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _NewLoader(_PlainLoader):
    """The same of what is about to be kept: what is kept already is read as it was when it was taken."""

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        """Refuse what looks like another number than it is."""
        if node.tag in _NUMBERS and _MISREAD.match(node.value):
            raise _refusal(f"{node.value} is no decimal number: write it as one, or in quotes", node)
        return super().construct_object(node, deep)


def read_mapping(data: bytes, name: str, code: str, loader: type[_PlainLoader] = _PlainLoader) -> dict[Any, Any]:
    """Read a YAML mapping; an empty file is an empty mapping.

    Raises:
        InvalidInput: with `code`; the message begins with `name` and says where and why.
    """
    if len(data) > MAX_BYTES:
        raise InvalidInput(code, f"{name}: {len(data)} bytes; at most {MAX_BYTES} are allowed.")
    try:
        value = loader(data.decode()).get_single_data()
    except UnicodeDecodeError:
        raise InvalidInput(code, f"{name}: not UTF-8 text.") from None
    except yaml.YAMLError as error:
        raise InvalidInput(code, f"{name}: {_explain(error)}.") from None
    except _NONSENSE as error:
        raise InvalidInput(code, f"{name}: a value cannot be read ({type(error).__name__}).") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidInput(code, f"{name}: must be `key: value` lines, not a {type(value).__name__}.")
    return value


def read_model(data: bytes, name: str, code: str, model: type[M]) -> M:
    """Read a YAML mapping as a model.

    Raises:
        InvalidInput: with `code`; the message begins with `name` and says on which line what is wrong.
    """
    value = read_mapping(data, name, code)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _misfit(error, data, name, code, model) from None


def require_typed(data: bytes, name: str, code: str, model: type[BaseModel]) -> None:
    """Refuse a value that is only taken for what a model wants, such as `yes` or "1" for 1, as requests' bodies do.

    Raises:
        InvalidInput: as `read_model`.
    """
    read = read_mapping(data, name, code, _NewLoader)
    written = json.dumps(read, default=lambda _: None)  # what JSON lacks fits nowhere
    try:
        model.model_validate_json(written, strict=True)
    except ValidationError as error:
        raise _misfit(error, data, name, code, model) from None


def _misfit(error: ValidationError, data: bytes, name: str, code: str, model: type[BaseModel]) -> InvalidInput:
    node = _PlainLoader(data.decode()).get_single_node()
    found = [(_line(node, part["loc"]), _problem_of(part, model)) for part in error.errors()[:_SHOWN]]
    told = "; ".join(f"line {line}: {problem}" for line, problem in found)
    return InvalidInput(code, f"{name}: {told}", line=found[0][0])


def line_of(data: bytes, where: tuple[int | str, ...]) -> int:
    """Find the line of a value in what was read; of the closest thing around it where it is missing."""
    return _line(_PlainLoader(data.decode()).get_single_node(), where)


def _line(node: Any, where: tuple[int | str, ...]) -> int:
    line = node.start_mark.line if node else 0
    for step in where:
        found = _within(node, step)
        if found is None:
            break
        (mark, node) = found
        line = mark.line
    return int(line) + 1


def _within(node: Any, step: int | str) -> tuple[Any, Any] | None:
    """Step into a mapping by a key, or into a list by an index: the mark to show, and the node."""
    if isinstance(node, MappingNode):
        return next(((key.start_mark, value) for key, value in node.value if key.value == str(step)), None)
    if isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark, node.value[step]
    return None


def problems(error: ValidationError, model: type[BaseModel]) -> str:
    """Say what is wrong with each key, and which key was probably meant by an unknown one."""
    return "; ".join(_problem_of(part, model) for part in error.errors()[:_SHOWN])


def _problem_of(part: Mapping[str, Any], model: type[BaseModel]) -> str:
    where = part["loc"]
    place = ".".join(map(str, where)) or "the file"
    if part["type"] != "extra_forbidden":
        return f"`{place}`: {plain(part['msg'])}"
    known = _model_at(model, where[:-1]).model_fields
    near = get_close_matches(str(where[-1]), known, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(known)}"
    return f"`{place}` is not a known key ({hint})"


def _model_at(model: type[BaseModel], where: tuple[int | str, ...]) -> type[BaseModel]:
    """Find the model of a part: indexes and keys of plain mappings lead to the model of what they hold."""
    for step in where:
        if field := model.model_fields.get(str(step)):
            model = _model_in(field.annotation) or model
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _refusal(problem: str, place: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)


def _explain(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}: " if mark else ""
        return place + (error.problem or error.context or "not valid YAML")
    return "holds characters that YAML does not allow"
