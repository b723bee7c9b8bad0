"""Sizes, times and strangers' words as people read them; the same on every machine, whatever its locale."""

from __future__ import annotations

import html
import re

from preserve.documents import archive
from preserve.documents.archive import Contents
from preserve.documents.counted import counted

# Control characters, lone surrogates, and what turns the direction of a text or hides in it. A fixed list: Unicode's
# categories differ between versions of Python, and the same archive must give the same bytes under each.
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)
# What means something to CommonMark, to GitHub's tables and formulas, and to those who make links of bare addresses.
_MARKUP = re.compile(r"[\\`*_{}\[\]<>#|&~!^$@]|:(?=/)|(?i:(?<=www))\.|^[-+=]|(?<=^\d)[.)]")


def plain(text: str) -> str:
    """One line of visible text: white space as a blank, other invisible characters as U+FFFD."""
    return _INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", re.sub(r"[\t\n\r ]+", " ", text).strip())


def in_html(text: str) -> str:
    """Text for HTML, between tags or in a quoted attribute."""
    return html.escape(plain(text), quote=True)


def in_markdown(text: str) -> str:
    """Text for Markdown: a backslash takes the meaning from ASCII punctuation (CommonMark, section 2.4)."""
    return _MARKUP.sub(lambda found: "\\" + found[0], plain(text))


def size(count: int) -> str:
    """A size in bytes with its unit, decimal prefixes: ``12.3 MB``."""
    if count < 1000:
        return f"{count} B"
    value, units = count / 1000, ("kB", "MB", "GB", "TB")
    for unit in units[:-1]:
        if value < 999.95:
            return f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} {units[-1]}"


def duration(seconds: float | None) -> str:
    """A duration: ``1.4 s``, ``12 min 5 s``, ``3 h 20 min``; ``-`` where it was not measured."""
    if seconds is None:
        return "-"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def completeness(contents: Contents) -> str:
    """What is inside and what is not, as a sentence."""
    left_out = [kind for kind in archive.LEAVABLE if kind in contents.without]
    if contents.left_out:
        left_out.append(counted(len(contents.left_out), "product"))
    if not left_out:
        return "Complete: images, inputs, code, all products, records and logs are inside."
    return f"Not inside, known by digest only: {', '.join(left_out)}."
