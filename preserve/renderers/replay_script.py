"""data/replay.sh: runs the archived plan with a shell and a container engine alone, when preserve is gone.

The functions of the script are in replay.sh beside this file; here the plan is written as calls of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from preserve.documents.archive import Contents, expected_files, rule_of
from preserve.documents.layout import layout_of
from preserve.documents.lockfile import ImagePin
from preserve.documents.plan import PlannedStep
from preserve.documents.record import Artifact
from preserve.documents.workflow import Resources
from preserve.errors import UserError

_PLAIN = re.compile(r"[A-Za-z0-9_./+@%,:-]+")
_REGISTRY = re.compile(r"docker://(?P<name>[^@]+?)(?::[^:/@]+)?(?:@.*)?")


def render(contents: Contents) -> bytes:
    """Give the script's bytes: a function of the plan, the pins, the records and what was left out.

    Raises:
        UserError: a text of the plan cannot be handed to any program (it has a NUL character or half a surrogate).
    """
    functions = resources.files("preserve.renderers").joinpath("replay.sh").read_text(encoding="utf-8")
    numbers = {name: number for number, name in enumerate(sorted(contents.plan.images), 1)}
    environments = _environments(contents.plan.steps)
    parts = [
        _title(contents),
        functions,
        "\n# ---------------------------------------------------------------- what the author declared\n\n",
        f"count={len(contents.plan.steps)}\n",
        f"networked={_word(' '.join(step.id for step in contents.plan.steps if step.network))}\n\n",
        _function("images", _images(contents.plan.images, numbers)),
        _function("inputs", _inputs(contents)),
        *(_function(f"settings_{number}", _settings(seen)) for seen, number in environments.items()),
        _function("steps", _steps(contents, numbers, environments)),
        'main "$@" </dev/null\n',
    ]
    return "".join(parts).encode()


def _title(contents: Contents) -> str:
    authors = ", ".join(author.name for author in contents.plan.authors)
    lines = (
        contents.plan.title,
        *([f"by {authors}"] if authors else []),
        "",
        f"This script runs the archived analysis again. It was written by {contents.agent}, which it does not need.",
    )
    return "#!/bin/sh\n" + "".join(f"# {_one_line(line)}".rstrip() + "\n" for line in lines)


def _function(name: str, lines: Iterable[str]) -> str:
    return "".join([f"{name}() {{\n", *(f"    {line}".rstrip(" ") + "\n" for line in lines), "    :\n}\n\n"])


def _images(images: Mapping[str, ImagePin], numbers: Mapping[str, int]) -> Iterator[str]:
    for name, number in numbers.items():
        pin = images[name]
        found = _REGISTRY.fullmatch(pin.reference)
        registry = found["name"] if found else ""
        digests = f"{pin.manifest_digest.hex} {pin.config_digest.hex}"
        yield f"image {number} {_word(name)} {digests} {_word(registry)} {_word(_one_line(pin.reference))}"


def _inputs(contents: Contents) -> Iterator[str]:
    """Everything the steps start from, each with its digest: data and files of the repository."""
    held = expected_files(contents)
    for path in sorted({**contents.plan.inputs, **contents.plan.sources}):
        pin, name = contents.pins[path], contents.names[path]
        executable = " x" if pin.executable else ""
        if name in held:
            yield f"inside {_word(path)} {_word(name)} {pin.sha256.hex}{executable}"
        else:
            origin = contents.plan.inputs[path].url or "the author's own disk"
            yield f"absent {_word(path)} {pin.sha256.hex} {pin.size} {_word(_one_line(origin))}{executable}"


def _environments(steps: Sequence[PlannedStep]) -> dict[tuple[tuple[str, str], ...], int]:
    """Number the environments that steps see: most steps share one."""
    found = dict.fromkeys(tuple(sorted(step.environment.items())) for step in steps)
    return {seen: number for number, seen in enumerate(found, 1)}


def _settings(seen: tuple[tuple[str, str], ...]) -> Iterator[str]:
    for name, value in seen:
        yield f"setting {_word(name)} {_word(value)}"


def _steps(
    contents: Contents, numbers: Mapping[str, int], environments: Mapping[tuple[tuple[str, str], ...], int]
) -> Iterator[str]:
    rules = _Rules(contents)
    for step in contents.plan.steps:
        yield ""
        yield f"step {_word(step.id)} {numbers[step.image]}   # {_one_line(step.stage)}"
        yield f"settings_{environments[tuple(sorted(step.environment.items()))]}"
        if step.resources != Resources():
            limits = (step.resources.cpus, step.resources.memory or "''", step.resources.time or "''")
            yield f"limits {limits[0]} {limits[1]} {limits[2]}"
        if step.network:
            yield "uses_network"
        yield from _seen(step)
        yield f"runs {_words(step.command)}"
        yield from _made(step, contents.records[step.id].products, rules)


def _seen(step: PlannedStep) -> Iterator[str]:
    """What the step finds at /work, in the order in which it is mounted."""
    layout = layout_of(tuple(item.path for item in step.inputs), step.outputs)
    lines = (
        ("reads", tuple(item.path for item in step.inputs)),
        ("writes", layout.mounted),
        ("also_makes", tuple(name for name in layout.writable if name not in layout.mounted)),
        ("protects", layout.islands),
    )
    for verb, paths in lines:
        if paths or verb == "writes":
            yield f"{verb} {_words(paths)}".rstrip()


@dataclass(frozen=True, slots=True)
class _Rules:
    """What the author requires of each result."""

    contents: Contents

    def of(self, path: str) -> str:
        """The requirement in one word, or nothing: no result."""
        rule = rule_of(self.contents.plan, path)
        return "" if rule is None else str(json.loads(rule).get("require", "equivalent"))


def _made(step: PlannedStep, products: Sequence[Artifact], rules: _Rules) -> Iterator[str]:
    """What the step must have made, with the digests of the record."""
    recorded = {product.path: product.sha256.hex for product in products}
    for output in step.outputs:
        if not output.endswith("/"):
            yield _judged("makes", output, recorded.get(output, "''"), rules)
            continue
        inside = [path for path in sorted(recorded) if path.startswith(output)]
        yield f"makes_folder {_word(output)}"
        for path in inside:
            yield _judged("compare", path, recorded[path], rules)
        yield _judged("nothing_else", output, str(len(inside)), rules)


def _judged(verb: str, path: str, expected: str, rules: _Rules) -> str:
    rule = rules.of(path)
    return f"{verb} {_word(path)} {expected}" + (f" {_word(rule)}" if rule else "")


def _words(values: Iterable[str]) -> str:
    return " ".join(_word(value) for value in values)


def _word(value: str) -> str:
    """One word of the shell that stands for exactly ``value``."""
    if _PLAIN.fullmatch(value):
        return value
    if "\0" in value or re.search("[\ud800-\udfff]", value):
        raise UserError(f"{value[:40]!a} has a character that no program can be given", hint="the plan is damaged")
    return "'" + value.replace("'", "'\\''") + "'"


def _one_line(text: str) -> str:
    """Text for a comment: nothing in it ends the line."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)
