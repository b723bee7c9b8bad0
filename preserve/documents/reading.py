"""Read preserve.yaml: bytes to a Workflow, or all that is wrong with it at once.

What can be told without the repository's files is checked here; the rest when the plan is made (planning.py).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from preserve.documents import fields, forms, paths
from preserve.documents.counted import counted
from preserve.documents.expressions import NAME
from preserve.documents.faults import Faults, did_you_mean
from preserve.documents.rules import read_results
from preserve.documents.steps import IMAGE_NAME, read_steps
from preserve.documents.workflow import Author, ImageSource, InputSource, Position, Scalar, Value, Workflow
from preserve.documents.yaml12 import (
    BrokenNode,
    ListNode,
    MapNode,
    Node,
    ScalarNode,
    decode,
    read_tree,
)
from preserve.errors import DocumentError, UserError

KEYS = ("format", "title", "authors", "license", "images", "parameters", "inputs", "steps", "results")
REQUIRED = ("format", "title", "images", "steps")
FORMAT = 1


def read_workflow(data: bytes, file: str) -> Workflow:
    """Read preserve.yaml; ``file`` is its name in messages.

    Raises:
        DocumentError: all faults that can be told without the repository's files.
    """
    faults = Faults(file)
    text = decode(data, faults)
    tree = read_tree(text, faults)
    top = fields.record(tree, "the file", faults, known=KEYS, required=REQUIRED)
    _check_format(top.get("format"), faults)
    images = _images(top.get("images"), faults)
    parameters = _parameters(top.get("parameters"), faults)
    workflow = Workflow(
        file=file,
        data=data,
        title=fields.line(top.get("title"), "title", faults) or "",
        authors=_authors(top.get("authors"), faults),
        license=fields.line(top.get("license"), "license", faults),
        images=images,
        parameters=parameters,
        inputs=_inputs(top.get("inputs"), faults),
        steps=read_steps(top.get("steps"), text, images, parameters, faults),
        results=read_results(top.get("results"), faults),
    )
    faults.raise_any()
    return workflow


def parse_parameter(text: str, workflow: Workflow) -> tuple[str, Value]:
    """Read ``name=value`` of the command line: the value in YAML 1.2 (a scalar, or a list ``[a, b]``).

    For a parameter declared as text, the value is taken as it is, unless it is in quotes. A whole number is
    accepted where a number with a point is declared.

    Raises:
        UserError: no such parameter, or the value is of another kind than the declared one.
    """
    name, equals, written = text.partition("=")
    if not equals:
        raise UserError(f"-p {text}: no value", hint=f"write -p {name}=VALUE")
    if name not in workflow.parameters:
        known = ", ".join(workflow.parameters) or "(none)"
        hint = did_you_mean(name, workflow.parameters) or f"{workflow.file} declares: {known}"
        raise UserError(f"-p {text}: no parameter {name!r}", hint=hint)
    if any(char == "\0" or "\ud800" <= char <= "\udfff" for char in written):
        raise UserError(f"-p {name}=…: the value is not UTF-8 text", hint="call preserve in a UTF-8 locale")
    declared = workflow.parameters[name]
    value = written if isinstance(declared, str) and written[:1] not in ("'", '"') else _written(name, written)
    fitted = fit(value, declared)
    if fitted is None:
        message = f"-p {text}: {name} is declared as {_kind(declared)}, this is {_kind(value)}"
        like = shlex.quote(f"{name}={_shown(declared)}")
        raise UserError(message, hint=f"write a value like the declared one: -p {like}")
    return name, fitted


def fit(value: Value, declared: Value) -> Value | None:
    """``value`` as a value of the declared one's kind, or ``None`` if it is of another."""
    if isinstance(declared, tuple):
        return _fit_list(value, declared) if isinstance(value, tuple) else None
    if isinstance(value, tuple):
        return None
    if isinstance(declared, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value if type(value) is type(declared) else None


def _fit_list(value: tuple[Scalar, ...], declared: tuple[Scalar, ...]) -> Value | None:
    kinds = {type(item) for item in declared}
    if len(kinds) != 1:
        return value
    fitted = [fit(item, declared[0]) for item in value]
    scalars = tuple(item for item in fitted if item is not None and not isinstance(item, tuple))
    return scalars if len(scalars) == len(value) else None


def _written(name: str, text: str) -> Value:
    faults = Faults(f"-p {name}")
    try:
        node = read_tree(decode(text.encode(), faults), faults)
        value = _value(node, f"the value of {name}", faults)
        faults.raise_any()
    except DocumentError as error:
        fault = error.faults[0]
        raise UserError(f"-p {name}={text}: {fault.message}", hint=fault.hint) from error
    if value is None:
        raise UserError(f"-p {name}={text}: no value", hint='write one; an empty text is ""')
    return value


def _kind(value: Value) -> str:
    if isinstance(value, tuple):
        return "a list"
    names = {bool: "true or false", int: "a whole number", float: "a number"}
    return names.get(type(value), "a text")


def _shown(value: Value) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value).lower()


def _check_format(node: Node | None, faults: Faults) -> None:
    if node is None or isinstance(node, BrokenNode):
        return
    value = fields.scalar(node, "format", faults)
    if value is not None and (value != FORMAT or type(value) is not int):
        hint = f"write format: {FORMAT}, or install the version of preserve that reads this file"
        faults.add(node, f"this version of preserve reads format {FORMAT}", hint)


def _authors(node: Node | None, faults: Faults) -> tuple[Author, ...]:
    authors = []
    for item in fields.items(node, "authors", faults):
        found = fields.record(item, "an author", faults, known=("name", "orcid"), required=("name",))
        orcid = fields.line(found.get("orcid"), "orcid", faults)
        if orcid and (problem := forms.problem_of_orcid(orcid)):
            faults.add(found["orcid"], *problem)
        authors.append(Author(name=fields.line(found.get("name"), "name", faults) or "", orcid=orcid))
    return tuple(authors)


def _images(node: Node | None, faults: Faults) -> dict[str, ImageSource]:
    images = {}
    if isinstance(node, MapNode) and not node.entries:
        faults.add(node, "no image is declared", "add one: NAME: docker://host/name:tag")
    for key, value in fields.keyed(node, "images", faults):
        if not IMAGE_NAME.fullmatch(key.text):
            faults.add(key, f'"{key.text}" is no name for an image', "use letters, digits and _.-, a letter first")
        images[key.text] = _image(key, value, faults)
    return images


def _image(key: ScalarNode, node: Node, faults: Faults) -> ImageSource:
    position, what = Position(line=key.line, column=key.column), f'the image "{key.text}"'
    if isinstance(node, ScalarNode):
        return ImageSource(reference=_reference(node, what, faults), position=position)
    found = fields.record(node, what, faults, known=("reference", "build", "setup"))
    if isinstance(node, MapNode) and ("reference" in found) == ("build" in found):
        hint = "give one: reference: docker://…, or build: folder/"
        faults.add(node, f"{what} needs either reference or build", hint)
    return ImageSource(
        reference=_reference(found["reference"], what, faults) if "reference" in found else None,
        build=_build_folder(found["build"], faults) if "build" in found else None,
        setup=fields.text(found.get("setup"), "setup", faults),
        position=position,
    )


def _reference(node: Node, what: str, faults: Faults) -> str | None:
    reference = fields.text(node, what, faults)
    if reference and (problem := forms.problem_of_reference(reference)):
        faults.add(node, *problem)
    return reference


def _build_folder(node: Node, faults: Faults) -> str | None:
    folder = fields.text(node, "build", faults)
    if folder and (problem := paths.problem(folder)):
        faults.add(node, *problem)
    elif folder and (paths.is_pattern(folder) or not folder.endswith("/")):
        faults.add(node, f'build: "{folder}" is not a folder', f'write the folder with a / at its end: "{folder}/"')
    return folder


def _parameters(node: Node | None, faults: Faults) -> dict[str, Value]:
    parameters: dict[str, Value] = {}
    for key, value in fields.keyed(node, "parameters", faults):
        if not re.fullmatch(NAME, key.text):
            faults.add(key, f'"{key.text}" is no name for a parameter', "use letters, digits and _-, a letter first")
        found = _value(value, f'the parameter "{key.text}"', faults)
        parameters[key.text] = "" if found is None else found
    return parameters


def _value(node: Node, what: str, faults: Faults) -> Value | None:
    if not isinstance(node, ListNode):
        return fields.scalar(node, what, faults)
    found = [fields.scalar(item, f"an item of {what}", faults) for item in node.items]
    return tuple(item for item in found if item is not None)


def _inputs(node: Node | None, faults: Faults) -> dict[str, InputSource]:
    inputs = {}
    hint = "write path: {url: …, sha256: …}, or path: {} for a local file"
    for key, value in fields.keyed(node, "inputs", faults, hint=hint):
        what = "a folder" if key.text.endswith("/") else "a pattern" if paths.is_pattern(key.text) else None
        if what:
            faults.add(key, f'the input "{key.text}" is {what}', "declare each file: its digest is pinned")
        elif problem := paths.problem_of_product(key.text):
            faults.add(key, *problem)
        inputs[key.text] = _input(key, value, faults)
    return inputs


def _input(key: ScalarNode, node: Node, faults: Faults) -> InputSource:
    what = f'the input "{key.text}"'
    if isinstance(node, ScalarNode):
        hint = f'write {{url: "{node.text}"}}' if forms.is_address(node.text) else "write {} for a local file"
        faults.add(node, f"{what} must be a mapping (key: value), found {fields.kind(node)}", hint)
        found: Mapping[str, Node] = {}
    else:
        found = fields.record(node, what, faults, known=("url", "sha256"))
    url = fields.line(found.get("url"), "url", faults)
    if url and not forms.is_address(url):
        faults.add(found["url"], f'"{url}" is no address', "write https://…, http://…, root://… or file:…")
    sha256 = fields.line(found.get("sha256"), "sha256", faults)
    digest = forms.digest(sha256) if sha256 else None
    if sha256 and digest is None:
        faults.add(
            found["sha256"],
            f"sha256 has {counted(len(sha256), 'character')}",
            "write the 64 digits that sha256sum prints",
        )
    return InputSource(url=url, sha256=digest, position=Position(line=key.line, column=key.column))
