"""These tests need files that ROOT itself wrote: they run when they are asked for (.ci/test-with-root)."""

from __future__ import annotations

import os

if os.environ.get("PRESERVE_TEST_ROOT") != "1":
    collect_ignore = ["test_root_itself.py"]
