"""Licences that have a public page: identifiers of the SPDX list that analyses, data and their code are given under."""

from __future__ import annotations

SPDX = frozenset(
    {
        "0BSD",
        "AGPL-3.0-only",
        "AGPL-3.0-or-later",
        "Apache-2.0",
        "Artistic-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "CC-BY-3.0",
        "CC-BY-4.0",
        "CC-BY-NC-4.0",
        "CC-BY-NC-ND-4.0",
        "CC-BY-NC-SA-4.0",
        "CC-BY-ND-4.0",
        "CC-BY-SA-3.0",
        "CC-BY-SA-4.0",
        "CC0-1.0",
        "ECL-2.0",
        "EPL-2.0",
        "EUPL-1.2",
        "GPL-2.0-only",
        "GPL-2.0-or-later",
        "GPL-3.0-only",
        "GPL-3.0-or-later",
        "ISC",
        "LGPL-2.1-only",
        "LGPL-2.1-or-later",
        "LGPL-3.0-only",
        "LGPL-3.0-or-later",
        "MIT",
        "MPL-2.0",
        "NCSA",
        "ODC-By-1.0",
        "ODbL-1.0",
        "PDDL-1.0",
        "PSF-2.0",
        "Unlicense",
        "Zlib",
    }
)


def page(licence: str | None) -> str | None:
    """Address of the page of a licence on the SPDX list; ``None``: not on our list, so a text of the authors' own."""
    return f"https://spdx.org/licenses/{licence}" if licence in SPDX else None
