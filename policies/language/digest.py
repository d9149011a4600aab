"""One digest for one meaning: the SHA-256 of a value written as canonical JSON.

Keys are sorted, there are no spaces, and 1.0 is written as 1, so that neither layout, comments nor a trailing
`.0` in a policy file change its digest (after RFC 8785, without its rules for the last digits of floats:
Python's shortest round-trip form is used). Must never import: anything but the standard library.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any


def canonical_sha256(value: Any) -> str:
    """`"sha256:<64 hex>"` of a JSON-like value (dict with text keys, list, tuple, str, number, bool, None).

    Raises ValueError for NaN and infinity, TypeError for anything else that is not JSON.
    """
    text = json.dumps(
        _canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return f"sha256:{hashlib.sha256(text.encode('utf-8')).hexdigest()}"


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"a digest needs text keys: {key!r}")
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and math.isfinite(value) and value == int(value) and abs(value) < 2**53:
        return int(value)
    return value
