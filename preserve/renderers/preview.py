"""ro-crate-preview.html: one static page about an archive. No script, nothing remote, every word escaped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from preserve.documents.archive import Contents
from preserve.documents.counted import counted
from preserve.documents.plan import PlannedStep
from preserve.documents.record import Record
from preserve.documents.workflow import Author
from preserve.renderers.wording import completeness, duration, in_html, size

_HEAD = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b; }}
h1 {{ line-height: 1.2; }}
h2 {{ margin-top: 2.5rem; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #ccc; overflow-wrap: anywhere; }}
td.number, th.number {{ text-align: right; white-space: nowrap; }}
code, pre {{ font-family: ui-monospace, monospace; font-size: .9em; }}
pre {{ background: #f3f3f3; padding: .8rem; overflow-x: auto; }}
dt {{ font-weight: 600; }}
dd {{ margin: 0 0 .5rem; }}
</style>
</head>
<body>
"""
_REPLAY = """\
<h2>Run it again</h2>
<p>With preserve:</p>
<pre>preserve verify FILE.crate.zip
preserve replay FILE.crate.zip</pre>
<p>Without it, with <code>unzip</code>, <code>sha256sum</code> and Docker or Apptainer:</p>
<pre>mkdir analysis &amp;&amp; cd analysis
unzip -q ../FILE.crate.zip
sha256sum --quiet -c tagmanifest-sha256.txt manifest-sha256.txt
sh data/replay.sh</pre>
"""


def render(contents: Contents) -> bytes:
    """Give the bytes of ro-crate-preview.html."""
    title = in_html(contents.plan.title)
    parts = (
        _HEAD.format(title=title),
        f"<h1>{title}</h1>\n",
        _facts(contents),
        _table("Results", ("file", "size", "sha256"), _results(contents)),
        _table("Steps", ("job", "stage", "image", "time", "CPU"), _steps(contents)),
        _table("Images", ("name", "reference", "platform", "manifest"), _images(contents)),
        _REPLAY,
        "</body>\n</html>\n",
    )
    return "".join(parts).encode()


def _facts(contents: Contents) -> str:
    plan = contents.plan
    facts = [("Authors", ", ".join(_author(author) for author in plan.authors) or "not named")]
    facts += [("Licence", plan.license or "none stated"), ("Run ended", contents.ended)]
    facts += [("Completeness", completeness(contents)), ("Written by", contents.agent)]
    if plan.source is not None:
        changes = "" if plan.source.clean else ", with uncommitted changes"
        facts.append(("Code", f"commit {plan.source.commit}{changes}"))
    if contents.parent is not None:
        facts.append(("Recast of", contents.parent))
    facts.append(("Run", f"{counted(len(contents.records), 'job')} of {counted(len(plan.steps), 'job')}"))
    rows = "".join(f"<dt>{in_html(term)}</dt><dd>{in_html(text)}</dd>\n" for term, text in facts)
    return f"<dl>\n{rows}</dl>\n"


def _author(author: Author) -> str:
    return f"{author.name} (ORCID {author.orcid})" if author.orcid else author.name


def _table(title: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table under its title; ``rows`` are HTML already."""
    head = "".join(f"<th>{column}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f"<h2>{title}</h2>\n<table>\n<tr>{head}</tr>\n{body}</table>\n"


def _results(contents: Contents) -> Iterator[tuple[str, ...]]:
    for path in contents.results:
        pin = contents.pins[path]
        yield in_html(path), size(pin.size), f"<code>{pin.sha256.hex}</code>"


def _steps(contents: Contents) -> Iterator[tuple[str, ...]]:
    for step in contents.plan.steps:
        yield _job(step, contents.records.get(step.id), contents)


def _job(step: PlannedStep, record: Record | None, contents: Contents) -> tuple[str, ...]:
    pin = contents.plan.images.get(step.image)
    image = f"{in_html(step.image)} <code>{pin.manifest_digest.short}</code>" if pin else in_html(step.image)
    wall, cpu = (record.wall_seconds, record.cpu_seconds) if record else (None, None)
    return in_html(step.id), in_html(step.stage), image, duration(wall), duration(cpu)


def _images(contents: Contents) -> Iterator[tuple[str, ...]]:
    for name, pin in sorted(contents.plan.images.items()):
        yield in_html(name), in_html(pin.reference), in_html(pin.platform), f"<code>{pin.manifest_digest}</code>"
