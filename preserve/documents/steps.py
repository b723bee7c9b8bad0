"""The steps of preserve.yaml: keys, names, paths, expressions, resources."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from preserve.documents import expressions, fields, forms, paths
from preserve.documents.faults import Faults
from preserve.documents.workflow import (
    STAGES,
    ImageSource,
    Position,
    Resources,
    Scalar,
    StepDeclaration,
    Value,
)
from preserve.documents.yaml12 import SCRIPT_HINT, BrokenNode, ListNode, Node, NotAScalar, ScalarNode, resolve

IMAGE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
RUN_LINES = "run.lines"  # in StepDeclaration.positions: where the text of run begins, if its lines are the file's

KEYS = ("name", "stage", "image", "run", "command", "inputs", "outputs", "for_each", "network", "resources")
REQUIRED = ("name", "stage", "image", "outputs")
RESOURCE_KEYS = ("cpus", "memory", "time")
MAX_NAME = 60  # bytes; a step's name begins the names of its jobs, logs and records

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TAKEN = ("parameters", "inputs", "outputs", "cpus")
_PATH_KINDS = ("parameter", "name")
_COMMENT = re.compile(r"[ \t]#")
_WINDOW = 200  # characters behind a script in which a comment is looked for: a line may hold all steps of a file
# Other tools' ways to write a parameter: ${parameters.low} and {{ parameters.low }}.
_OTHER_BRACES = re.compile(r"\$\{ *parameters\.([\w-]+) *\}|(?<!\$)\{\{ *parameters\.([\w-]+) *\}\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Context:
    """What steps may refer to, and the file's lines for exact positions in scripts."""

    images: Mapping[str, ImageSource]
    parameters: Mapping[str, Value]
    lines: tuple[str, ...]
    faults: Faults


def read_steps(
    node: Node | None,
    text: str,
    images: Mapping[str, ImageSource],
    parameters: Mapping[str, Value],
    faults: Faults,
) -> tuple[StepDeclaration, ...]:
    """Read ``steps:`` and check what they say of images and parameters; unused images are noted too."""
    context = _Context(images=images, parameters=parameters, lines=tuple(re.split(r"\r\n|\r|\n", text)), faults=faults)
    if isinstance(node, ListNode) and not node.items:
        faults.add(node, "no step is declared", "add one: - name: …")
    steps = tuple(_step(item, context) for item in fields.items(node, "steps", faults))
    _check_names(steps, faults)
    used = {step.image for step in steps}
    misspelt = not used or any(name not in images for name in used)  # then it is not known what is unused
    for name, image in images.items():
        if name not in used and not misspelt:
            faults.add(image.position, f'no step uses the image "{name}"', "remove it, or name it in a step's image:")
    return steps


def _step(node: Node, context: _Context) -> StepDeclaration:
    faults = context.faults
    found = fields.record(node, "a step", faults, known=KEYS, required=REQUIRED)
    if found and ("run" in found) == ("command" in found):
        what = "a step has both run and command" if "run" in found else "a step needs either run or command"
        faults.add(node, what, "give one: run: a script for sh, or command: [program, argument, …]")
    step = StepDeclaration(
        name=_name(found.get("name"), faults),
        stage=fields.chosen(found.get("stage"), "stage", faults, STAGES) or STAGES[0],
        image=_image(found.get("image"), context),
        run=_run(found.get("run"), faults),
        command=_command(found.get("command"), faults),
        inputs=_texts(found.get("inputs"), "inputs", faults),
        outputs=_texts(found.get("outputs"), "outputs", faults),
        for_each=_for_each(found.get("for_each"), context),
        network=fields.flag(found.get("network"), "network", faults),
        resources=_resources(found.get("resources"), faults),
        position=_at(node),
        positions=_positions(found, context),
    )
    if isinstance(outputs := found.get("outputs"), ListNode) and not outputs.items:
        faults.add(outputs, "a step without outputs", "name the files it makes: without a product it is never done")
    _check_comment(node, found.get("run"), context)
    _check_step(step, context)
    return step


def _check_comment(step: Node, run: Node | None, context: _Context) -> None:
    """Note a script without "|" that YAML cuts at " #": its author may have meant the sign for a program."""
    if not isinstance(run, ScalarNode) or run.style:
        return
    for number in range(run.line, len(context.lines) + 1):
        line = context.lines[number - 1]
        start = run.column - 1 if number == run.line else _first_sign(line)
        if number > run.line and start < min(step.column, len(line)):
            return  # the next key
        found = _COMMENT.search(line, start, start + len(run.text) + _WINDOW)
        written = line[start : found.start()].rstrip() if found else ""
        if found and written and run.text.endswith(written):  # else it stands behind something else than the script
            place = Position(line=number, column=found.end())
            context.faults.add(place, 'the script ends before this "#": in YAML a comment begins here', SCRIPT_HINT)
            return


def _first_sign(line: str) -> int:
    """Where the line's first character stands that is no space; its length if there is none."""
    return next((at for at, sign in enumerate(line) if sign != " "), len(line))


def _name(node: Node | None, faults: Faults) -> str:
    name = fields.text(node, "name", faults)
    if name and node and (not _NAME.fullmatch(name) or len(name) > MAX_NAME):
        hint = f"use letters, digits and _.-, at most {MAX_NAME}, a letter or digit first"
        faults.add(node, f'"{name}" is no name for a step', hint)
    return name or ""


def _image(node: Node | None, context: _Context) -> str:
    name = fields.text(node, "image", context.faults)
    if name and node and name not in context.images:
        otherwise = f"declared are: {', '.join(context.images)}" if context.images else "declare it under images:"
        if "/" in name or ":" in name:
            otherwise = f"declare it under images: NAME: {name}, and write image: NAME"
        hint = context.faults.suggest(name, context.images, otherwise)
        context.faults.add(node, f'the image "{name}" is not declared', hint)
    return name or ""


def _run(node: Node | None, faults: Faults) -> str | None:
    if isinstance(node, ListNode):
        faults.add(node, "run must be a text, found a list", "write command: [program, argument, …]")
        return None
    return fields.text(node, "run", faults)


def _command(node: Node | None, faults: Faults) -> tuple[str, ...] | None:
    if node is None:
        return None
    if isinstance(node, ScalarNode):
        faults.add(
            node, "command must be a list, found a text", "write [program, argument, …], or use run: for a script"
        )
        return ()
    arguments = [_argument(item, faults) for item in fields.items(node, "command", faults)]
    if isinstance(node, ListNode) and not arguments:
        faults.add(node, "command is empty", "write [program, argument, …]")
    return tuple(argument or "" for argument in arguments)


def _argument(node: Node, faults: Faults) -> str | None:
    """Take an argument: a text, or a number written as it would be printed, so that there is no doubt what is meant."""
    if not isinstance(node, ScalarNode):
        if not isinstance(node, BrokenNode):
            hint = 'put a text with [, { or ": " in quotes'
            faults.add(node, f"an argument must be a text, found {fields.kind(node)}", hint)
        return None
    try:
        value = resolve(node)
    except NotAScalar:
        value = None
    if isinstance(value, str) or (type(value) in (int, float) and str(value) == node.text):
        return node.text
    faults.add(node, f"an argument must be a text, and {node.text or 'this'} is {fields.kind(node)}", _quoted(node))
    return None


def _quoted(node: ScalarNode) -> str:
    return f'put it in quotes: "{node.text}"'


def _texts(node: Node | None, what: str, faults: Faults) -> tuple[str, ...]:
    return tuple(fields.text(item, f"an item of {what}", faults) or "" for item in fields.items(node, what, faults))


def _for_each(node: Node | None, context: _Context) -> dict[str, tuple[Scalar, ...] | str]:
    found: dict[str, tuple[Scalar, ...] | str] = {}
    for key, value in fields.keyed(node, "for_each", context.faults, hint="write for_each: {NAME: [value, …]}"):
        if not _VARIABLE.fullmatch(key.text) or key.text in _TAKEN:
            hint = f"use letters, digits and _; not {', '.join(_TAKEN)}"
            context.faults.add(key, f'"{key.text}" is no name for a variable', hint)
        found[key.text] = _list_of_values(key, value, context)
    return found


def _list_of_values(key: ScalarNode, node: Node, context: _Context) -> tuple[Scalar, ...] | str:
    faults = context.faults
    if isinstance(node, ScalarNode) and expressions.OPENING in node.text:
        return _parameter_of_list(node, context)
    if isinstance(node, ScalarNode) and node.text.removeprefix("parameters.") in context.parameters:
        name = node.text.removeprefix("parameters.")
        hint = f'write "${{{{ parameters.{name} }}}}" for the parameter, or [{node.text}]'
        faults.add(node, f'the values of "{key.text}" must be a list, found a text', hint)
        return ()
    nodes = fields.items(node, f'the values of "{key.text}"', faults)
    values = [fields.scalar(item, f'a value of "{key.text}"', faults) for item in nodes]
    if isinstance(node, ListNode) and not nodes:
        faults.add(node, f'"{key.text}" has no values', "a step for no value does nothing: give one at least")
    seen: dict[str, Node] = {}
    for item, value in zip(nodes, values, strict=True):
        if value is not None and (first := seen.setdefault(expressions.as_text(value), item)) is not item:
            hint = f"it is already in line {first.line}, column {first.column}"
            faults.add(item, f'the value {expressions.as_text(value)} of "{key.text}" stands twice', hint)
    return tuple(value for value in values if value is not None)


def _parameter_of_list(node: ScalarNode, context: _Context) -> str:
    template, problems = expressions.parse(node.text)
    _note(problems, node, context.faults)
    if problems:
        return node.text
    if template.texts != ("", "") or template.expressions[0].kind != "parameter":
        context.faults.add(node, "for_each takes a list or one parameter", 'write [a, b], or "${{ parameters.NAME }}"')
    elif _known(template.expressions[0], node, context, ()) and not isinstance(
        context.parameters[template.expressions[0].name], tuple
    ):
        name = template.expressions[0].name
        context.faults.add(node, f'the parameter "{name}" is not a list', f"write {name}: [a, b] under parameters:")
    return node.text


def _resources(node: Node | None, faults: Faults) -> Resources:
    if node is None:
        return Resources()
    found = fields.record(node, "resources", faults, known=RESOURCE_KEYS)
    return Resources(
        cpus=fields.integer(found.get("cpus"), "cpus", faults, least=1) or 1,
        memory=_quantity(found.get("memory"), "memory", "2 GB (kB, MB, GB, TB, KiB, MiB, GiB, TiB)", faults),
        time=_quantity(found.get("time"), "time", "10 min (s, min, h, d)", faults),
    )


def _quantity(node: Node | None, what: str, example: str, faults: Faults) -> int | None:
    value = None if node is None else fields.scalar(node, what, faults)
    if node is None or value is None:
        return None
    amount = (forms.memory if what == "memory" else forms.duration)(expressions.as_text(value))
    if amount is None:
        faults.add(node, f"{what}: {expressions.as_text(value)} is no number with a unit", f"write it like {example}")
    return amount


def _at(node: Node) -> Position:
    return Position(line=node.line, column=node.column)


def _positions(found: Mapping[str, Node], context: _Context) -> dict[str, Position]:
    positions = {}
    for key, node in found.items():
        positions[key] = _at(node)
        if isinstance(node, ListNode):
            positions.update((f"{key}[{i}]", _at(item)) for i, item in enumerate(node.items))
    for name, value in fields.entries(found.get("for_each"), "for_each", Faults("")).items():
        positions[f"for_each.{name}"] = _at(value)
    if isinstance(run := found.get("run"), ScalarNode) and (start := _start_of_text(run, context.lines)):
        positions[RUN_LINES] = start
    return positions


def _start_of_text(node: ScalarNode, lines: tuple[str, ...]) -> Position | None:
    """Where a text begins in the file, if its lines are lines of the file: a literal block, or one plain line."""
    if not node.style:
        return _at(node) if lines[node.line - 1].startswith(node.text, node.column - 1) else None
    if node.style != "|":
        return None
    for number, line in enumerate(node.text.split("\n")):
        source = lines[node.line + number] if node.line + number < len(lines) else ""
        if line.strip() and source.endswith(line):
            return Position(line=node.line + 1, column=len(source) - len(line) + 1)
    return None


def locate(step: StepDeclaration, key: str, offset: int) -> Position:
    """Where in preserve.yaml character ``offset`` of the text ``key`` ("run", "command[0]" …) of a step stands."""
    start = step.positions.get(RUN_LINES) if key == "run" else None
    if start is None or step.run is None:
        return step.positions.get(key, step.position)
    before = step.run[:offset]
    return Position(line=start.line + before.count("\n"), column=start.column + offset - before.rfind("\n") - 1)


def _check_names(steps: tuple[StepDeclaration, ...], faults: Faults) -> None:
    seen: dict[str, StepDeclaration] = {}
    for step in steps:
        first = seen.setdefault(step.name.casefold(), step)
        if step.name and first is not step:
            place = step.positions["name"]
            hint = f'the step of line {first.position.line} is called "{first.name}": names differ in more than case'
            faults.add(place, f'a second step with the name "{step.name}"', hint)


def _check_step(step: StepDeclaration, context: _Context) -> None:
    for key, text in (("run", step.run), *((f"command[{i}]", text) for i, text in enumerate(step.command or ()))):
        if text and expressions.OPENING in text:
            _check_expressions(step, key, text, context)
        _check_braces(step, key, text or "", context)
    for i, path in enumerate(step.inputs):
        _check_path(step, f"inputs[{i}]", path, context)
    for i, path in enumerate(step.outputs):
        _check_path(step, f"outputs[{i}]", path, context)


def _check_braces(step: StepDeclaration, key: str, text: str, context: _Context) -> None:
    """Note a declared parameter in the braces of another tool: the shell would refuse it, or print it as it is."""
    for found in _OTHER_BRACES.finditer(text):
        name = found[1] or found[2]
        if name in context.parameters:
            hint = f"did you mean ${{{{ parameters.{name} }}}}?"
            context.faults.add(locate(step, key, found.start()), f'"{found[0]}" is no expression', hint)


def _check_path(step: StepDeclaration, key: str, path: str, context: _Context) -> None:
    if not path:
        return  # complained about where it was read
    _check_braces(step, key, path, context)
    if expressions.OPENING in path:
        _check_expressions(step, key, path, context, allowed=_PATH_KINDS)
        return
    problem = paths.problem_of_product(path) if key.startswith("outputs") else paths.problem(path)
    if problem:
        context.faults.add(step.positions[key], *problem)


def _check_expressions(
    step: StepDeclaration, key: str, text: str, context: _Context, *, allowed: tuple[str, ...] = ()
) -> None:
    template, problems = expressions.parse(text)
    for problem in problems:
        context.faults.add(locate(step, key, problem.offset), problem.message, problem.hint)
    for expression in template.expressions:
        place = locate(step, key, expression.offset)
        if allowed and (expression.kind not in allowed or expression.name == "cpus"):
            message = f"${{{{ {expression.text} }}}} can't stand in a path"
            context.faults.add(place, message, "use parameters.NAME or a for_each variable")
        elif expression.kind in ("inputs", "outputs"):
            _check_index(step, expression, place, context.faults)
        else:
            _known(expression, place, context, tuple(step.for_each))


def _check_index(step: StepDeclaration, expression: expressions.Expression, place: Position, faults: Faults) -> None:
    count = len(step.inputs if expression.kind == "inputs" else step.outputs)
    if expression.index >= count:
        hint = f"the last is {expression.kind}[{count - 1}]" if count else f"add {expression.kind}: to the step"
        faults.add(place, f"the step has no {expression.kind}[{expression.index}]", hint)


def _known(
    expression: expressions.Expression, place: Position | ScalarNode, context: _Context, variables: tuple[str, ...]
) -> bool:
    """Whether the name exists; else it is complained about."""
    parameters = context.parameters
    if expression.kind == "parameter":
        if expression.name in parameters:
            return True
        otherwise = f"declared are: {', '.join(parameters)}" if parameters else "declare it under parameters:"
        hint = context.faults.suggest(expression.name, parameters, otherwise)
        context.faults.add(place, f'the parameter "{expression.name}" is not declared', hint)
        return False
    if expression.name == "cpus" or expression.name in variables:
        return True
    names = (*variables, "cpus", *(f"parameters.{name}" for name in parameters))
    if f"parameters.{expression.name}" in names:
        hint = f"write ${{{{ parameters.{expression.name} }}}}"
    elif expression.name in ("input", "output"):
        hint = f"write ${{{{ {expression.name}s[0] }}}}"
    else:
        hint = context.faults.suggest(expression.name, names) or f"known here are: {', '.join(names)}"
    context.faults.add(place, f'"{expression.name}" is no for_each variable of this step', hint)
    return False


def _note(problems: tuple[expressions.Problem, ...], place: ScalarNode, faults: Faults) -> None:
    for problem in problems:
        faults.add(place, problem.message, problem.hint)
