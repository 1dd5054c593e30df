"""Python with its words marked up, by the standard library's own tokenizer."""

from __future__ import annotations

import io
import keyword
import textwrap
import tokenize
from html import escape

__all__ = ["highlight"]

_KINDS = {tokenize.COMMENT: "c", tokenize.STRING: "s", tokenize.NUMBER: "n"}
_FSTRING = {
    getattr(tokenize, name)
    for name in ("FSTRING_START", "FSTRING_MIDDLE", "FSTRING_END")
    if hasattr(tokenize, name)
}


def highlight(code: str) -> str:
    """Return HTML of ``code`` with spans around keywords, strings, numbers and comments.

    Code that the tokenizer refuses comes back escaped and plain.

    Example:
        >>> highlight("x = 1  # one")
        'x = <span class="n">1</span>  <span class="c"># one</span>'
    """
    text = textwrap.dedent(code).strip("\n")
    lines = text.splitlines(keepends=True)
    out: list[str] = []
    at = (1, 0)
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            kind = _kind(token)
            if kind is None:
                continue
            out.append(escape(_between(lines, at, token.start)))
            word = _between(lines, token.start, token.end)
            out.append(f'<span class="{kind}">{escape(word)}</span>')
            at = token.end
    except (tokenize.TokenError, SyntaxError, IndentationError):
        return escape(text)
    out.append(escape(_between(lines, at, (len(lines) + 1, 0))))
    return "".join(out)


def _kind(token: tokenize.TokenInfo) -> str | None:
    """The class of a token, None for plain text."""
    if token.type == tokenize.NAME and keyword.iskeyword(token.string):
        return "k"
    return "s" if token.type in _FSTRING else _KINDS.get(token.type)


def _between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    """The text from ``start`` to ``end`` (row from 1, column)."""
    if start[0] == end[0]:
        return lines[start[0] - 1][start[1] : end[1]]
    parts = [lines[start[0] - 1][start[1] :], *lines[start[0] : end[0] - 1]]
    if end[0] <= len(lines):
        parts.append(lines[end[0] - 1][: end[1]])
    return "".join(parts)
