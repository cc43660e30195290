"""Finds the line of a YAML file that a problem is about."""

from collections.abc import Sequence

import yaml
from yaml.nodes import MappingNode, Node, SequenceNode


def line_of(data: bytes, where: Sequence[int | str]) -> int:
    """Follow keys and places into a file that was read without error; the line of the last that is there."""
    node: Node | None = yaml.compose(data.decode(), Loader=yaml.SafeLoader)
    line = 1
    for step in where:
        found = _step(node, step)
        if found is None:
            break
        mark, node = found
        line = mark.start_mark.line + 1
    return line


def _step(node: Node | None, step: int | str) -> tuple[Node, Node] | None:
    """Go one step down: to the node that marks the place, and to what stands there."""
    if isinstance(node, MappingNode):
        return next(((key, value) for key, value in node.value if key.value == str(step)), None)
    if isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step]
    return None
