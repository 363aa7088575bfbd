"""The URL of a request: what may be written there, and how references are put in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from dag.references import Malformed, Reference, Unresolved, parse, resolve_text

if TYPE_CHECKING:
    from dag.references import Scope

_PLAIN: Final = re.compile(r"[!-~]*")
_USER: Final = re.compile(r"://[^/?#]*@")


def why_refused(url: str) -> tuple[str, str] | None:
    """Say what is wrong with the literal text of *url*, and the way out; the rest is judged when it is whole."""
    try:
        literal = "".join(part if isinstance(part, str) else "" for part in parse(url))
    except Malformed:
        return None  # told with the other references
    if not _PLAIN.fullmatch(literal):
        return "A URL is ASCII without white space.", "Write other characters percent-encoded, or pass them by query."
    if _USER.search(literal):
        return "A URL holds no user and no password.", "Pass them by headers: a URL is shown in logs."
    if "#" in literal:
        return "What stands behind # is never sent.", "Leave it out, or write %23."
    return None


def resolve_url(url: str, scope: Scope) -> str:
    """Return *url* with every reference replaced, or raise :exc:`~dag.references.Unresolved`.

    Behind the host a value is data: percent-encoded, it cannot become another path or another parameter.  Before that,
    or where it follows the host without a slash, it comes as it is; whoever makes the request judges the whole.
    """
    try:
        parts = parse(url)
    except Malformed as wrong:  # no document with one is accepted; a run must not crash on it either
        raise Unresolved(wrong.message) from wrong
    texts, literal = [], ""
    for part in parts:
        if isinstance(part, Reference):
            value = resolve_text(part.text, scope)
            texts.append(quote(value, safe="") if re.search("[/?]", literal.replace("://", "")) else value)
        else:
            texts.append(part)
            literal += part
    return "".join(texts)
