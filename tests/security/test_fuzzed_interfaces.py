"""schemathesis against both OpenAPI documents, on the real servers: no 5xx, and the documents tell the truth.

TRIMTAB_FUZZ_EXAMPLES: test cases for each operation (default few, for the check); `make fuzz` takes many.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.serving.openapi import document

EXAMPLES = os.environ.get("TRIMTAB_FUZZ_EXAMPLES", "15")
LONGEST_S = 60 + 2 * int(EXAMPLES)
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2 * LONGEST_S)]


def fuzz(file: Path, url: str, *more: str) -> None:
    """Run the fuzzer; fails with its own report."""
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", str(file), "--url", url]
    settings = ["--max-examples", EXAMPLES, "--seed", "5", "--request-timeout", "15", "--no-color"]
    done = subprocess.run(
        [*command, *settings, *more],
        cwd=file.parent,
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@pytest.fixture
def described(target: Any) -> dict[str, Any]:
    """The document of /decide as the fuzzer can use it.

    JSON Schema has no words for the range of a time, which the description gives: here it is a pattern within it.
    """
    found: dict[str, Any] = document(target.release, url=target.users)
    called_at = found["components"]["schemas"]["Row"]["properties"]["called_at"]["anyOf"][0]
    assert called_at.pop("format") == "date-time"
    assert called_at["description"] == "from 2008-05-01T00:00:00Z"
    called_at["pattern"] = "^2009-0[1-9]-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z$"
    return found


def test_decide_through_envoy(target: Any, described: dict[str, Any], documents: Callable[..., Path]) -> None:
    """What the document allows is decided, what it forbids is refused with a reason, and nothing is a 5xx."""
    post = described["paths"]["/decide"]["post"]
    post["parameters"] = [one for one in post["parameters"] if one["name"] != "explain"]
    fuzz(documents("decide", described), target.users)


def test_explained_decisions_through_envoy(
    target: Any, described: dict[str, Any], documents: Callable[..., Path]
) -> None:
    """Any single row that the contract allows is explained as it is decided."""
    post = described["paths"]["/decide"]["post"]
    post["requestBody"]["content"]["application/json"]["schema"] = {"$ref": "#/components/schemas/Row"}
    fuzz(documents("explained", described), target.users, "--mode", "positive", "--phases", "fuzzing")


def test_control(target: Any, documents: Callable[..., Path]) -> None:
    """Every endpoint with the home's token: the documented statuses and bodies only.

    Two checks are left to tests/services/control: they take the token away, which the header given here brings back.
    Of /outcomes not everything that the document allows is taken: "not after now" has no word in JSON Schema.
    """
    described = httpx.get(f"{target.control}/openapi.json", headers=target.bearer).json()
    file = documents("control", described)
    given = ["--header", f"authorization: {target.bearer['authorization']}", "--exclude-checks"]
    left = "ignored_auth,missing_required_header"
    fuzz(file, target.control, *given, left, "--exclude-path", "/outcomes")
    fuzz(file, target.control, *given, f"{left},positive_data_acceptance", "--include-path", "/outcomes")
