"""JSON objects in text columns: NaN refused, keys sorted, so that equal objects are equal text.

Must never import: anything but the standard library.
"""

import json
from typing import cast

JsonObject = dict[str, object]


def dump(value: object) -> str:
    """JSON text of a JSON-like value. Raises ValueError for NaN and infinities, TypeError for anything not
    JSON."""
    return json.dumps(value, allow_nan=False, sort_keys=True, separators=(",", ":"))


def load_object(text: str) -> JsonObject:
    """The object that `dump` wrote."""
    return cast(JsonObject, json.loads(text))
