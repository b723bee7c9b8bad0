"""README.md of an archive: what it is and how to run it again, with preserve and when preserve is gone."""

from __future__ import annotations

from collections.abc import Iterator

from preserve.documents import archive
from preserve.documents.archive import Contents
from preserve.documents.counted import counted
from preserve.documents.workflow import Author
from preserve.renderers.wording import completeness, duration, in_markdown, plain, size

_WITH = """\
## Run it again with preserve

```sh
preserve verify FILE.crate.zip     # are all bytes what they were?
preserve show FILE.crate.zip       # what is inside
preserve replay FILE.crate.zip     # run it again without network and compare the results
```
"""
_WITHOUT = """\
## Run it again without preserve

The file is an ordinary ZIP. With `unzip`, `sha256sum` and Docker or Apptainer (or Singularity):

```sh
mkdir analysis && cd analysis
unzip -q ../FILE.crate.zip
sha256sum --quiet -c tagmanifest-sha256.txt manifest-sha256.txt
sh data/replay.sh
```
"""
_PLACES = (
    ("`data/workflow/`", "the declaration `preserve.yaml`, the lock, and `plan.json`: every command as it was run"),
    ("`data/replay.sh`", "runs the plan with a shell and a container engine alone"),
    ("`data/inputs/`", "data and code that steps read, under their own names where an archive allows them"),
    ("`data/products/`", "what steps made on the way"),
    ("`data/results/`", "what the analysis is for"),
    (
        "`data/fingerprints/`",
        "what results hold, part by part: small parts whole, large ones by digest and sum",
    ),
    ("`data/records/`, `data/logs/`", "what each job read, made, used and printed"),
    ("`data/code/`", "the code's history as a git bundle"),
    ("`data/oci/`", "the container images, an OCI image layout that `docker load` takes as well"),
    ("`manifest-sha256.txt`", "sha256 of every file below `data/` (BagIt)"),
    ("`tagmanifest-sha256.txt`", "sha256 of every file beside it; its own sha256 is the archive's id"),
    ("`ro-crate-metadata.json`", "all of this for machines: RO-Crate 1.1, Provenance Run Crate 0.5"),
)


def render(contents: Contents) -> bytes:
    """Give the bytes of README.md; what strangers wrote is escaped."""
    parts = [
        f"# {in_markdown(contents.plan.title)}\n",
        "\n".join(_facts(contents)) + "\n",
        _WITH,
        _WITHOUT,
        *_notes(contents),
        "## Results\n",
        "\n".join(_results(contents)) + "\n",
        "## What lies where\n",
        "\n".join(_places(contents)) + "\n",
    ]
    return "\n".join(parts).encode()


def _facts(contents: Contents) -> Iterator[str]:
    plan, records = contents.plan, contents.records.values()
    yield f"An analysis preserved whole by {in_markdown(contents.agent)}, to be run again.\n"
    if plan.authors:
        yield f"- Authors: {', '.join(_author(author) for author in plan.authors)}"
    yield f"- Licence: {in_markdown(plan.license or 'none stated')}"
    engines = sorted({f"{record.engine.name} {record.engine.version}" for record in records})
    wall = duration(sum(record.wall_seconds for record in records))
    yield f"- Run: {counted(len(records), 'job')}, {wall} in all, on {in_markdown(', '.join(engines))}"
    yield f"- Ended: {plain(contents.ended)}"
    yield f"- {completeness(contents)}"
    if plan.source is not None:
        changes = "" if plan.source.clean else ", with uncommitted changes"
        yield f"- Code: commit {in_markdown(plan.source.commit)}{changes}"
    if contents.parent is not None:
        yield f"- A recast of the archive {contents.parent}"


def _author(author: Author) -> str:
    orcid = f" (ORCID {in_markdown(author.orcid)})" if author.orcid else ""
    return in_markdown(author.name) + orcid


def _notes(contents: Contents) -> Iterator[str]:
    """What has to be fetched where something was left out."""
    if "images" in contents.without:
        yield "The images are not inside. `sh data/replay.sh --pull` fetches them by digest:\n"
        for name in sorted(contents.plan.images):
            pin = contents.plan.images[name]
            yield f"- {in_markdown(pin.reference)}, manifest {pin.manifest_digest}"
        yield ""
    if "inputs" in contents.without:
        yield "The inputs are not inside. Fetch them first, and give each to the replay with `--input PATH=FILE`:\n"
        for path, source in sorted(contents.plan.inputs.items()):
            place = f", from {in_markdown(source.url)}" if source.url else ""
            yield f"- {in_markdown(path)} ({size(source.size)}, {source.sha256}){place}"
        yield ""
    if contents.left_out:
        yield "These products are not inside. A replay makes them again; results are judged by their fingerprints:\n"
        for path in sorted(contents.left_out):
            yield f"- {in_markdown(path)} ({size(contents.pins[path].size)}, {contents.pins[path].sha256})"
        yield ""


def _results(contents: Contents) -> Iterator[str]:
    yield "| file | size | sha256 |"
    yield "|---|---|---|"
    for path in contents.results:
        pin, name = contents.pins[path], contents.names[path].removeprefix(archive.DATA)
        shown = in_markdown(path) if name.endswith("/" + path) else f"{in_markdown(path)} (data/{in_markdown(name)})"
        yield f"| {shown} | {size(pin.size)} | {pin.sha256.hex} |"


def _places(contents: Contents) -> Iterator[str]:
    """What the archive has; a folder that it has not is not named."""
    folders = {name.split("/")[1] for name in contents.payload}
    yield "| path | what |"
    yield "|---|---|"
    for place, what in _PLACES:
        name = place.strip("`").removeprefix(archive.DATA).partition("/")[0]
        if not place.startswith("`" + archive.DATA) or name in folders:
            yield f"| {place} | {what} |"
