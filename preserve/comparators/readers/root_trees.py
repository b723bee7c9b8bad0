"""ROOT's trees and RNTuples as leaves: one branch after the other, some clusters at a time."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from preserve.comparators.extras import library
from preserve.comparators.leaves import Leaf, Limits, TooMuch
from preserve.comparators.making import number, text, unreadable
from preserve.comparators.pieces import SHORT, VALID, Packed, PackedPart, Piece, leaves_of_pieces
from preserve.digest import Digest

_PIECE = 16 << 20  # bytes unpacked at a time, or one basket if that is longer
_HARMLESS = 64 << 20  # bytes: below this nothing is said about the ratio of unpacked to packed
_PART = 2 << 20  # bytes unpacked of baskets that are compared as they lie in the file, or one that is longer
_ENTRIES = 1 << 17  # of an RNTuple at a time
_KEY = struct.Struct(">ihiIhh")  # length on disk, version, length of the object, time, length of the key, cycle
# Members of trees and branches that say how they were written, not what: sizes, places, buffers.
TREE_CONTENT = ("fTitle", "fWeight", "fAliases", "fIndexValues", "fIndex", "fTreeIndex", "fFriends", "fUserInfo")


def leaves_of_tree(
    path: str, tree: Any, read: Callable[[int, int], bytes], limits: Limits, *, attempt: bool
) -> Iterator[Leaf]:
    """Yield the leaves of a TTree's branches; ``read`` gives bytes of the file by place and length.

    ``attempt``: not those of plain numbers, which harm nobody and may be many.

    Raises:
        TooMuch: a limit was passed.
    """
    yield number(f"{path}:entries", int(tree.num_entries))
    for name, branch in tree.iteritems(recursive=True):
        inner = f"{path}/{name}"
        yield text(f"{inner}:title", str(branch.title))
        yield text(f"{inner}:type", str(branch.typename))
        if not (attempt and _is_plain(branch)):
            yield from _of_branch(inner, branch, read, limits)


def _of_branch(path: str, branch: Any, read: Callable[[int, int], bytes], limits: Limits) -> Iterator[Leaf]:
    if not branch.num_baskets:
        if branch.num_entries and not len(branch.branches):
            yield unreadable(path, "its baskets are in another file, which is not opened")
        return
    if branch.member("fFileName", none_if_missing=True):
        yield unreadable(path, f"its baskets are in another file ({branch.member('fFileName')}), which is not opened")
        return
    sizes = _check_baskets(path, branch, read, limits)
    if len(branch.branches):  # its own baskets only count what its branches hold
        yield _opaque(path, branch)
        return
    if sum(sizes) <= SHORT and _is_plain(branch):
        yield Leaf(path=path, kind="num", load=Packed(parts=tuple(_packed(branch, sizes, read, limits.depth))))
        return
    try:
        leaves = list(leaves_of_pieces(path, lambda: _pieces(branch, sizes, limits.depth), limits))
    except TooMuch:
        raise
    # A type that uproot cannot interpret, whatever it raises: then the bytes of all its baskets must be the same.
    except Exception:
        leaves = [_opaque(path, branch)]
    yield from leaves


def _is_plain(branch: Any) -> bool:
    """Whether a branch has one number, or as many in each entry."""
    interpretation = branch.interpretation
    return isinstance(interpretation, library("uproot", "root").AsDtype) and interpretation.to_dtype.names is None


def _check_baskets(path: str, branch: Any, read: Callable[[int, int], bytes], limits: Limits) -> list[int]:
    """Give the unpacked length of every basket, as the file says it (uproot unpacks no more than that).

    Raises:
        TooMuch: together they are too long.
    """
    if branch.num_baskets > limits.leaves:
        raise TooMuch(f"{path} has more than {limits.leaves} baskets")
    sizes, packed = [], 0
    seeks = branch.member("fBasketSeek")
    for place in range(branch.num_baskets):
        if place < len(seeks) and seeks[place]:
            length, _, unpacked, _, key, _ = _KEY.unpack(read(int(seeks[place]), _KEY.size))
            sizes.append(max(0, unpacked))
            packed += max(0, length - key)
        else:  # inside the tree's own record, which was unpacked already
            sizes.append(0)
    if sum(sizes) > limits.bytes:
        raise TooMuch(f"{path} is longer than {limits.bytes} bytes")
    if sum(sizes) > max(_HARMLESS, limits.ratio * packed):
        raise TooMuch(f"{path} says that it unpacks to more than {limits.ratio} times its size")
    return sizes


def _pieces(branch: Any, sizes: list[int], depth: int) -> Iterator[Piece]:
    start, total = 0, 0
    for size, stop in zip(sizes, branch.entry_offsets[1:], strict=False):
        total += size
        if total >= _PIECE:
            yield _parts("", _array(branch, start, int(stop)), depth)
            start, total = int(stop), 0
    if start < branch.num_entries:
        yield _parts("", _array(branch, start, int(branch.num_entries)), depth)


def _packed(branch: Any, sizes: list[int], read: Callable[[int, int], bytes], depth: int) -> Iterator[PackedPart]:
    """Yield the parts of a plain branch, some baskets each."""
    offsets, seeks = [int(offset) for offset in branch.entry_offsets], branch.member("fBasketSeek")
    first, total = 0, 0
    for last, size in enumerate(sizes):
        total += size
        if total >= _PART or last == len(sizes) - 1:
            start, stop = offsets[first], offsets[last + 1]
            yield PackedPart(
                like=f"{branch.interpretation} {offsets[first : last + 2]} {sizes[first : last + 1]}",
                length=stop - start,
                packed=partial(_baskets, [int(seek) for seek in seeks[first : last + 1]], read),
                array=lambda start=start, stop=stop: _parts("", _array(branch, start, stop), depth)[""],  # type: ignore[misc]
            )
            first, total = last + 1, 0


def _baskets(seeks: list[int], read: Callable[[int, int], bytes]) -> bytes | None:
    """Give baskets as they lie in the file, without their keys, which have times; ``None``: one is elsewhere."""
    if not all(seeks):
        return None
    found = []
    for seek in seeks:
        length, _, _, _, key, _ = _KEY.unpack(read(seek, _KEY.size))
        found.append(read(seek + key, max(0, length - key)))
    return b"".join(found)


def _array(branch: Any, start: int, stop: int) -> Any:
    array = branch.array(entry_start=start, entry_stop=stop, library="ak")
    return library("awkward", "root").to_packed(array, highlevel=False)


def _opaque(path: str, branch: Any) -> Leaf:
    """Give the bytes of all baskets: nothing is known of them, but they are not passed over."""
    state = hashlib.sha256()
    for place in range(branch.num_baskets):
        state.update(np.asarray(branch.basket(place).raw_data).tobytes())
    digest = Digest("sha256:" + state.hexdigest())
    return Leaf(path=f"{path}:baskets", kind="opaque", load=lambda: digest, digest=digest)


def leaves_of_ntuple(path: str, ntuple: Any, limits: Limits) -> Iterator[Leaf]:
    """Yield the leaves of an RNTuple's fields.

    Raises:
        TooMuch: a limit was passed.
    """
    _check_pages(path, ntuple, limits)
    yield number(f"{path}:entries", int(ntuple.num_entries))
    yield text(f"{path}:description", str(ntuple.description))
    for name in ntuple.keys(recursive=False):
        yield text(f"{path}/{name}:type", str(ntuple[name].typename))
        yield text(f"{path}/{name}:description", str(ntuple[name].description))
        yield from leaves_of_pieces(f"{path}/{name}", _reading(ntuple, name, limits.depth), limits)


def _check_pages(path: str, ntuple: Any, limits: Limits) -> None:
    columns = ntuple.column_records
    unpacked = packed = 0
    for cluster in ntuple.page_link_list:
        for record, column in zip(columns, cluster, strict=False):
            unpacked += sum(page.num_elements * record.nbits // 8 for page in column.pages)
            packed += sum(page.locator.num_bytes for page in column.pages)
    if unpacked > limits.bytes:
        raise TooMuch(f"{path} is longer than {limits.bytes} bytes")
    if unpacked > max(_HARMLESS, limits.ratio * packed):
        raise TooMuch(f"{path} says that it unpacks to more than {limits.ratio} times its size")


def _reading(ntuple: Any, name: str, depth: int) -> Callable[[], Iterator[Piece]]:
    stops = [int(one.num_first_entry + one.num_entries) for one in ntuple.cluster_summaries]

    def pieces() -> Iterator[Piece]:
        start = 0
        for stop in stops:  # whole clusters: a part of one is unpacked as all of it
            if stop - start >= _ENTRIES or stop == stops[-1]:
                array = ntuple[name].array(entry_start=start, entry_stop=stop)
                yield _parts("", library("awkward", "root").to_packed(array, highlevel=False), depth)
                start = stop

    return pieces


def _parts(path: str, layout: Any, depth: int) -> dict[str, Any]:
    """Give the arrays and texts that a packed array of awkward is made of."""
    if depth < 0:
        raise TooMuch(f"nested too deeply at {path[:80]}")
    if layout.is_option:
        valid = np.asarray(layout.mask_as_bool(valid_when=True))
        return _joined({f"{path}{VALID}": valid}, _parts(path, layout.project(), depth - 1))
    if layout.parameter("__array__") in ("string", "bytestring"):
        return {path: "".join(f"{word!r}\n" for word in layout.to_list())}
    if layout.is_numpy:
        return {path: np.asarray(layout.data)}
    if layout.is_regular:
        return _of_regular(path, layout, depth)
    if layout.is_list:
        packed = layout.to_ListOffsetArray64(True)
        offsets = np.asarray(packed.offsets)
        content = packed.content[: offsets[-1]]
        return _joined({f"{path}:counts": np.diff(offsets)}, _parts(_inside(path, content), content, depth - 1))
    return _of_many(path, layout, depth)


def _inside(path: str, content: Any) -> str:
    """Where the content of a list goes: under the list's own name if there is one such content only."""
    return f"{path}/item" if content.is_option or content.is_list else path


def _of_regular(path: str, layout: Any, depth: int) -> dict[str, Any]:
    content = layout.content[: len(layout) * layout.size]
    if content.is_numpy and content.parameter("__array__") is None:
        return {path: np.asarray(library("awkward", "root").to_numpy(layout, allow_missing=False))}
    return _parts(_inside(path, content), content, depth - 1)


def _of_many(path: str, layout: Any, depth: int) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    if layout.is_indexed:
        return _parts(path, layout.project(), depth - 1)
    if layout.is_record:
        for name in layout.fields:
            parts = _joined(parts, _parts(f"{path}.{name}", layout.content(name), depth - 1))
    elif layout.is_union:
        parts[f"{path}:tags"] = np.asarray(layout.tags.data)
        for place in range(len(layout.contents)):
            parts = _joined(parts, _parts(f"{path}:{place}", layout.project(place), depth - 1))
    elif not layout.is_unknown:
        raise TypeError(f"{type(layout).__name__} at {path}")
    return parts


def _joined(parts: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Join parts, of which none may hide another."""
    twice = parts.keys() & more.keys()
    if twice:
        raise TypeError(f"two parts are called {min(twice)}")
    return parts | more
