"""The written form of our JSON documents is the standard library's, to the byte."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preserve.documents import jsonform

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner))


@given(VALUES)
def test_it_is_what_the_standard_library_writes(value: Any) -> None:
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    assert jsonform.dump(value) == (text + "\n").encode()


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf]])
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        jsonform.dump(value)


@pytest.mark.parametrize("value", [b"bytes", {"a": {1, 2}}, {1: "a name that is none"}])
def test_what_is_no_document_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        jsonform.dump(value)
