"""CITATION.cff: how to cite an archive (Citation File Format 1.2.0)."""

from __future__ import annotations

import json
import re

from preserve.documents.archive import Contents
from preserve.documents.workflow import Author
from preserve.renderers import licences
from preserve.renderers.wording import plain

_ORCID = re.compile(r"\d{4}-\d{4}-\d{4}-\d{3}[\dX]", re.ASCII)


def render(contents: Contents) -> bytes:
    """Give the bytes of CITATION.cff. Authors are entities: only they know which of their names is the family's."""
    plan = contents.plan
    lines = [
        "cff-version: 1.2.0",
        "message: If you use this analysis, please cite it as below.",
        "type: dataset",
        f"title: {_quoted(plan.title)}",
        "authors:",
    ]
    for author in plan.authors:
        lines += _author(author)
    if not plan.authors:
        lines.append('  - name: "Authors not named"')  # the format requires one
    lines.append(f'date-released: "{contents.ended[:10]}"')
    if plan.license is not None and licences.page(plan.license) is not None:
        lines.append(f"license: {_quoted(plan.license)}")
    if plan.source is not None:
        lines.append(f"commit: {_quoted(plan.source.commit)}")
    return ("\n".join(lines) + "\n").encode()


def _author(author: Author) -> list[str]:
    lines = [f"  - name: {_quoted(author.name)}"]
    if author.orcid is not None and _ORCID.fullmatch(author.orcid):
        lines.append(f'    orcid: "https://orcid.org/{author.orcid}"')
    return lines


def _quoted(text: str) -> str:
    """A JSON string of visible characters is a double-quoted YAML scalar."""
    return json.dumps(plain(text), ensure_ascii=False)
