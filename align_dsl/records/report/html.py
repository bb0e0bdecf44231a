"""Words -> markup. Whatever is not `Html` yet is escaped here, and nowhere else.

Controls and bidi marks are spelled out on the way, so that no text can reorder the page or forge a
part of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TypeAlias

from align_dsl.errors import visible

DASH = "\u2013"  # for what is not known, and between the ends of an interval
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
VOID = frozenset({"meta", "link", "br", "line", "circle", "path", "rect"})


class Html(str):
    """Text that is markup already. Only this module makes any."""

    __slots__ = ()


Part: TypeAlias = "str | int | None"  # what is None is left out


def text(part: Part) -> Html:
    """
    >>> text('<b> & "\\u202e"')
    '&lt;b&gt; &amp; &quot;&lt;U+202E&gt;&quot;'
    """
    if isinstance(part, Html):
        return part
    return Html("" if part is None else escape(visible(str(part)), quote=True))


def join(parts: Iterable[Part], between: str = "") -> Html:
    return Html(text(between).join(map(text, parts)))


def el(name: str, /, *parts: Part, **attributes: str | int | float | bool | None) -> Html:
    """An element. A trailing `_` of an attribute's name is dropped, other `_` become `-`.

    >>> el("td", "1 < 2", class_="n", aria_hidden="true", title=None)
    '<td class="n" aria-hidden="true">1 &lt; 2</td>'
    """
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(_plain(value))}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID:
        return Html(f"<{name}{said}>" if name in ("meta", "link", "br") else f"<{name}{said}/>")
    return Html(f"<{name}{said}>{join(parts)}</{name}>")


def style_sheet(css: str) -> Html:
    """Our own, which holds no `<`: what stands in a style element cannot be escaped."""
    assert "<" not in css
    return Html(f"<style>{css}</style>")


def document(head: Html, body: Html) -> Html:
    return Html(
        f'<!doctype html>\n<html lang="en">\n{el("head", head)}\n{el("body", body)}\n</html>\n'
    )


def page(title: str, css: str, parts: Iterable[Part]) -> Html:
    """A document that needs nothing else: no network, no script, no other file."""
    head = join(
        [
            el("meta", charset="utf-8"),
            el("meta", http_equiv="Content-Security-Policy", content=POLICY),
            el("meta", name="viewport", content="width=device-width, initial-scale=1"),
            el("meta", name="color-scheme", content="light dark"),
            el("meta", name="referrer", content="no-referrer"),
            el("link", rel="icon", href="data:,"),  # else a browser asks a server for one
            el("title", title),
            style_sheet(css),
        ],
        "\n",
    )
    return document(head, el("main", *parts))


def section(title: str, *parts: Part, name: str) -> Html:
    return el("section", el("h2", title, id=name), *parts, aria_labelledby=name)


def _plain(value: str | int | float | bool) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return "" if value is True else str(value)
