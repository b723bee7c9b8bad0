"""``${{ … }}``: the five things that may stand between the braces, and how a value is put in their place.

``parameters.X`` · a ``for_each`` variable · ``inputs[0]`` · ``outputs[0]`` · ``cpus``. There are no operators and no
functions. ``$${{`` is a literal ``${{``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from preserve.documents import paths, quoting, shell
from preserve.documents.workflow import Scalar, Value

OPENING = "${{"
NAME = r"[A-Za-z_][A-Za-z0-9_-]*"  # what parameters are called
_EXPRESSION = re.compile(r"\$\$\{\{|\$\{\{(.*?)\}\}", re.DOTALL)
_FORM = re.compile(rf"(parameters)\.({NAME})|(inputs|outputs)\[([0-9]{{1,6}})\]|({NAME})")
_FORMS = "write parameters.NAME, a for_each variable, inputs[0], outputs[0] or cpus"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """What stands between the braces: ``kind`` parameter, inputs, outputs or name (a variable, or ``cpus``)."""

    kind: str
    name: str = ""
    index: int = 0
    offset: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is wrong at ``offset`` (characters from the start of the text)."""

    offset: int
    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A text cut at its expressions: ``texts`` has one entry more than ``expressions``."""

    texts: tuple[str, ...]
    expressions: tuple[Expression, ...]

    @property
    def with_holes(self) -> str:
        """The text with a hole for each expression, as the sh scanner reads it."""
        return quoting.HOLE.join(self.texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What the expressions of one job mean. A pattern or folder among ``inputs`` stands for all it matched."""

    parameters: Mapping[str, Value]
    values: Mapping[str, Scalar]
    inputs: tuple[Value, ...] = ()
    outputs: tuple[str, ...] = ()
    cpus: int = 1

    def value(self, expression: Expression) -> Value:
        """Value of an expression whose name is known to exist."""
        match expression.kind:
            case "parameter":
                return self.parameters[expression.name]
            case "inputs":
                return self.inputs[expression.index]
            case "outputs":
                return self.outputs[expression.index]
            case _:
                return self.cpus if expression.name == "cpus" else self.values[expression.name]


def parse(text: str) -> tuple[Template, tuple[Problem, ...]]:
    """Cut ``text`` at its expressions; what is malformed is left out and told as a problem."""
    texts, expressions, problems, literal, at = [], [], [], "", 0
    for match in _EXPRESSION.finditer(text):
        literal += text[at : match.start()]
        at = match.end()
        if match[1] is None:
            literal += OPENING
            continue
        expression = _expression(match)
        if isinstance(expression, Problem):
            problems.append(expression)
            continue
        texts.append(literal)
        literal = ""
        expressions.append(expression)
    rest = text[at:]
    if OPENING in rest:
        offset = at + rest.index(OPENING)
        problems.append(
            Problem(offset=offset, message="${{ without }}", hint="close it, or write $${{ for a literal ${{")
        )
    texts.append(literal + rest)
    return Template(texts=tuple(texts), expressions=tuple(expressions)), tuple(problems)


def _expression(match: re.Match[str]) -> Expression | Problem:
    inside, offset = match[1].strip(), match.start()
    form = _FORM.fullmatch(inside)
    if form is None:
        shown = inside if len(inside) < 60 else inside[:57] + "…"
        return Problem(offset=offset, message=f"${{{{ {shown} }}}} is no expression", hint=_FORMS)
    if form[1]:
        return Expression(kind="parameter", name=form[2], offset=offset, text=inside)
    if form[3]:
        return Expression(kind=form[3], index=int(form[4]), offset=offset, text=inside)
    return Expression(kind="name", name=form[5], offset=offset, text=inside)


def as_text(value: Scalar) -> str:
    """Write a value as text: ``true`` and ``false``, the shortest decimal form of a number, a text as it is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


def fill_script(template: Template, spots: tuple[quoting.Spot, ...], scope: Scope) -> tuple[str, tuple[Problem, ...]]:
    """Put the values into a script for sh, each one inert at its place; ``spots`` are those of ``with_holes``."""
    pieces, problems = [template.texts[0]], []
    for expression, spot, text in zip(template.expressions, spots, template.texts[1:], strict=True):
        try:
            pieces.append(_written(scope.value(expression), spot))
        except shell.Unfit as error:
            problems.append(_unfit(expression, scope, str(error), _remedy(scope.value(expression))))
        pieces.append(text)
    return "".join(pieces), tuple(problems)


def _remedy(value: Value) -> str:
    if isinstance(value, tuple):
        return "write it outside quotes as a word of its own: it becomes one word per item"
    return "before it, in a line of its own, write v=${{ … }}, and use $v here"


def _written(value: Value, spot: quoting.Spot) -> str:
    if isinstance(value, tuple):
        return shell.write_list(tuple(as_text(item) for item in value), spot)
    return shell.write(as_text(value), spot)


def fill_argument(template: Template, scope: Scope) -> tuple[tuple[str, ...], tuple[Problem, ...]]:
    """Put the values into one item of ``command:``; a list that is the whole item becomes several."""
    if len(template.expressions) == 1 and template.texts == ("", ""):
        value = scope.value(template.expressions[0])
        return tuple(as_text(v) for v in (value if isinstance(value, tuple) else (value,))), ()
    text, problems = _fill(template, scope, lambda _: None)
    return (text,), problems


def fill_path(template: Template, scope: Scope) -> tuple[str, tuple[Problem, ...]]:
    """Put the values into a path; a value must be fit for one and may not bring wildcards."""
    return _fill(template, scope, paths.unfit_value)


def _fill(template: Template, scope: Scope, unfit: paths.Check) -> tuple[str, tuple[Problem, ...]]:
    pieces, problems = [template.texts[0]], []
    for expression, text in zip(template.expressions, template.texts[1:], strict=True):
        value = scope.value(expression)
        if isinstance(value, tuple):
            problems.append(_unfit(expression, scope, "it is a list", "use for_each for one job per value"))
        elif reason := unfit(as_text(value)):
            problems.append(
                _unfit(expression, scope, reason, "use letters, digits and _.+=@- in values that name files")
            )
        else:
            pieces.append(as_text(value))
        pieces.append(text)
    return "".join(pieces), tuple(problems)


def _unfit(expression: Expression, scope: Scope, reason: str, hint: str) -> Problem:
    value = scope.value(expression)
    shown = "" if isinstance(value, tuple) else f" = {_shown(as_text(value))}"
    message = f"${{{{ {expression.text} }}}}{shown} can't stand here: {reason}"
    return Problem(offset=expression.offset, message=message, hint=hint)


def _shown(text: str) -> str:
    return ascii(text) if len(text) < 60 else ascii(text[:57]) + "…"
