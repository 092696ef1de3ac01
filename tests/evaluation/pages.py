"""A page as a tree, for tests of what it says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser


VOID = ("meta", "img", "link", "br", "hr", "input")


@dataclass
class Node:
    """An element: its attributes, and what it holds in order, elements and text."""

    tag: str
    attributes: dict[str, str | None] = field(default_factory=dict)
    children: list[Node | str] = field(default_factory=list)

    def find(self, *tags: str) -> list[Node]:
        """All elements below with one of these tags, in the order of the page; all elements without any tag."""
        return [node for node in self._below() if not tags or node.tag in tags]

    @property
    def text(self) -> str:
        """What is written in it, on one line."""
        return " ".join("".join(self._texts()).split())

    def _below(self) -> Iterator[Node]:
        for child in self.children:
            if isinstance(child, Node):
                yield child
                yield from child._below()

    def _texts(self) -> Iterator[str]:
        for child in self.children:
            if isinstance(child, Node):
                yield from child._texts()
            else:
                yield child


class _Parser(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open = [Node("")]

    def handle_starttag(self, tag, attributes):
        node = Node(tag, dict(attributes))
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        self.open[-1].children.append(data)


def parse(page: str) -> Node:
    """The tree of a page whose elements are all closed."""
    parser = _Parser()
    parser.feed(page)
    parser.close()
    (root,) = parser.open
    return root


def rows_of(table: Node) -> list[list[str]]:
    """The text of every cell."""
    return [[cell.text for cell in row.find("th", "td")] for row in table.find("tr")]
