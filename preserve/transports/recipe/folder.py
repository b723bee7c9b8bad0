"""A recipe folder on disk: image.yaml with the files it names, or a Dockerfile with its context."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from preserve.digest import Digest, hash_file, hash_tree
from preserve.documents import jsonform
from preserve.documents.recipe import FILE, Recipe, read_recipe
from preserve.documents.requirements import Requirement, read_requirements
from preserve.errors import UserError

DOCKERFILE = "Dockerfile"

Files = Mapping[str, tuple[bytes, bool]]  # content and executable bit by path in the image


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeFolder:
    """A recipe with the contents of everything that it names in its folder."""

    recipe: Recipe
    files: Files
    requirements: tuple[Requirement, ...]

    def digest(self, platform: str, builder: str) -> Digest:
        """What decides the image besides the packages' versions; comments and spelling do not."""
        value = {
            "builder": builder,
            "platform": platform,
            "debian": [self.recipe.debian.suite, *self.recipe.debian.packages],
            "environment": dict(self.recipe.environment),
            "files": {path: [Digest.of(data), executable] for path, (data, executable) in self.files.items()},
            "python": [[each.name, each.version, *each.hashes] for each in self.requirements],
        }
        return Digest.of(jsonform.canonical(value))


def is_dockerfile(folder: Path) -> bool:
    """Whether the folder's recipe is a Dockerfile; image.yaml goes first where both are."""
    return (folder / DOCKERFILE).is_file() and not (folder / FILE).is_file()


def context_digest(folder: Path, platform: str) -> Digest:
    """Digest of all files that a Dockerfile may use."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    tree = hash_tree((path.relative_to(folder).as_posix(), hash_file(path)) for path in files)
    return Digest.of(f"{tree} {platform}".encode())


def recipe_digest(folder: Path, name: str, platform: str) -> Digest:
    """Digest of a recipe as its author wrote it, whatever builds it; see ``read_folder`` for what may be raised."""
    if is_dockerfile(folder):
        return context_digest(folder, platform)
    return read_folder(folder, name).digest(platform, builder="")


def recipe_suite(folder: Path, name: str) -> str | None:
    """Debian suite of a recipe's packages; ``None``: it has none; see ``read_folder`` for what may be raised."""
    return None if is_dockerfile(folder) else read_folder(folder, name).recipe.debian.suite or None


def read_folder(folder: Path, name: str) -> RecipeFolder:
    """Read the recipe of the folder that preserve.yaml calls ``name``.

    Raises:
        UserError: there is none, it has faults, or something that it names is missing.
    """
    shown = f"{name.rstrip('/')}/{FILE}"
    if not (folder / FILE).is_file():
        raise UserError(
            f"{name}: no image recipe: neither {FILE} nor {DOCKERFILE} is there",
            hint="docs/reference/image-recipe.md shows one",
        )
    recipe = read_recipe((folder / FILE).read_bytes(), shown)
    files: dict[str, tuple[bytes, bool]] = {}
    for target, source in sorted(recipe.files.items()):
        for path, found in _found(folder, source, shown):
            files[target + path] = (found.read_bytes(), bool(found.stat().st_mode & 0o100))
    requirements: tuple[Requirement, ...] = ()
    if recipe.python is not None:
        _, found = next(_found(folder, recipe.python, shown))
        requirements = read_requirements(found.read_bytes(), f"{name.rstrip('/')}/{recipe.python}")
    return RecipeFolder(recipe=recipe, files=files, requirements=requirements)


def _found(folder: Path, source: str, shown: str) -> Iterator[tuple[str, Path]]:
    """Yield the file, or a folder's files with their paths below it; bytecode is not taken along."""
    start = folder / source
    if not source.endswith("/"):
        if not start.is_file():
            raise UserError(f"{shown}: {source} is not a file of the recipe folder")
        yield "", start
        return
    if not start.is_dir():
        raise UserError(f"{shown}: {source} is not a folder of the recipe folder")
    for path in sorted(start.rglob("*")):
        if path.is_symlink():
            raise UserError(f"{shown}: {path.relative_to(folder)} is a link", hint="put the file itself there")
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(start).as_posix(), path
