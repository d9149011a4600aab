"""Audits what is installed: every package pinned, every licence one that we accept, known advisories where asked.

`python infra/audit.py [--write]`, in the environment that is audited. Licences are read from the packages' own
metadata; `--write` writes them to infra/licences.md, which must agree. Advisories are asked of an OSV service
(https://osv.dev, POST /v1/querybatch) only where TRIMTAB_ADVISORIES names one, e.g. https://api.osv.dev: the check
needs no network. Source: SPDX licence list; PEP 639. Must never import: anything of the project.
"""

import json
import os
import re
import sys
import tomllib
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LICENCES = ROOT / "infra" / "licences.md"
PROJECT = "trimtab"
BUILD = ("hatchling", "uv")
ADVISORIES_VARIABLE = "TRIMTAB_ADVISORIES"
DRIVERS = ("nvidia-", "cuda-", "triton")
"""Name beginnings of what a build of torch for a GPU brings along: the machine's own, neither pinned nor passed on."""
IS_REFERENCE = sys.platform == "linux" and sys.version_info[:2] == (3, 11)
"""constraints.txt and the licence list are one resolution; another platform or Python may need other packages."""

# Ours may be used and passed on beside these. LGPL: psycopg alone, unmodified and replaceable.
ACCEPTED = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "Artistic-1.0-Perl",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSD-3-Clause-Clear",
        "BSL-1.0",
        "CC0-1.0",
        "CNRI-Python",
        "HPND",
        "ISC",
        "LGPL-3.0-only",
        "LLVM-exception",
        "MIT",
        "MIT-0",
        "MIT-CMU",
        "MPL-2.0",
        "PSF-2.0",
        "TCL",
        "Unlicense",
        "Zlib",
    }
)
SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
CHOSEN = {"text-unidecode": "Artistic-1.0-Perl"}
"""Where the owner lets one choose and the metadata does not say so in SPDX's words."""


@dataclass(frozen=True)
class Package:
    """One installed package; `licence` an SPDX expression, empty where the package says none."""

    name: str
    version: str
    licence: str
    is_product: bool


def licence_of(found: Distribution) -> str:
    """What the package says of itself, in SPDX's words as far as we know them."""
    name = canonicalize_name(found.metadata["Name"])
    if name in CHOSEN:
        return CHOSEN[name]
    said = found.metadata.get("License-Expression")
    if said:
        return str(said)
    classifiers = [
        one.rpartition(" :: ")[2]
        for one in found.metadata.get_all("Classifier") or []
        if one.startswith("License ::") and not one.endswith(("OSI Approved", "DFSG approved"))
    ]
    words = classifiers or str(found.metadata.get("License") or "").strip().splitlines()[:1]
    return " AND ".join(SPDX.get(word, word) for word in words)


def is_accepted(licence: str) -> bool:
    """Whether an SPDX expression lets us: of each AND every part, of each OR one. Nothing said is not accepted."""
    tokens = re.findall(r"\(|\)|[^\s()]+", licence)
    try:
        accepted, rest = _either(tokens)
    except IndexError:
        return False
    return accepted and not rest


def _either(tokens: list[str]) -> tuple[bool, list[str]]:
    """The worth of the longest `a OR b …` that the tokens begin with, and what follows. Raises IndexError at an end."""
    accepted, rest = _both(tokens)
    while rest[:1] == ["OR"]:
        another, rest = _both(rest[1:])
        accepted = accepted or another
    return accepted, rest


def _both(tokens: list[str]) -> tuple[bool, list[str]]:
    accepted, rest = _one(tokens)
    while rest[:1] in (["AND"], ["WITH"]):
        another, rest = _one(rest[1:])
        accepted = accepted and another
    return accepted, rest


def _one(tokens: list[str]) -> tuple[bool, list[str]]:
    if tokens[0] != "(":
        return tokens[0] in ACCEPTED, tokens[1:]
    accepted, rest = _either(tokens[1:])
    if rest[0] != ")":
        return False, rest
    return accepted, rest[1:]


def packages() -> tuple[Package, ...]:
    """Everything installed that the project or its developers need; the product's own, and what it needs, is marked."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    extras = [line for name in optional if name != "dev" for line in optional[name]]
    product = closure([*project["dependencies"], *extras])
    everything = product | closure([*optional["dev"], *BUILD])
    pinned = pins()
    names = {name for name in everything - {PROJECT} if name in pinned or not name.startswith(DRIVERS)}
    return tuple(
        Package(name, found.version, licence_of(found), name in product)
        for name in sorted(names)
        for found in [distribution(name)]
    )


def closure(requirements: Sequence[str]) -> frozenset[str]:
    """The canonical names of what these need, as far as it is installed."""
    done: set[tuple[str, str]] = set()
    waiting = [(Requirement(line), "") for line in requirements]
    while waiting:
        requirement, of_extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": of_extra}):
            continue
        name = canonicalize_name(requirement.name)
        try:
            needs = [Requirement(line) for line in distribution(name).requires or []]
        except PackageNotFoundError:
            continue
        for extra in ("", *requirement.extras):
            if (name, extra) not in done:
                done.add((name, extra))
                waiting += [(need, extra) for need in needs]
    return frozenset(name for name, _ in done)


def pins() -> Mapping[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = (line.partition("#")[0].strip().partition("==") for line in lines)
    return {canonicalize_name(name): version for name, _, version in found if version}


def faults(found: Sequence[Package], pinned: Mapping[str, str]) -> Iterator[str]:
    """What must not be, one sentence each."""
    for one in found:
        wanted = pinned.get(one.name)
        if wanted is None:
            yield f"{one.name} {one.version} is not pinned in constraints.txt"
        elif one.version.partition("+")[0] != wanted.partition("+")[0]:
            yield f"{one.name} must be {wanted} by constraints.txt: {one.version} is installed"
        if not is_accepted(one.licence):
            yield f"{one.name}: 'licence' must be one that we accept (infra/audit.py): {one.licence or 'none said'!r}"


def table(found: Sequence[Package]) -> str:
    """infra/licences.md: the product's packages and those that only developers need."""
    lines = [
        "# Licences of what we use",
        "",
        "Written by `python infra/audit.py --write` from the packages' own words.",
        "",
    ]
    for title, is_product in (("In the product", True), ("For developers only", False)):
        lines += [f"## {title}", "", "| package | licence |", "| --- | --- |"]
        lines += [f"| {one.name} | {one.licence} |" for one in found if one.is_product == is_product]
        lines.append("")
    return "\n".join(lines[:-1]) + "\n"


def unlisted(found: Sequence[Package], text: str) -> list[str]:
    """Packages whose line in infra/licences.md is missing or says something else."""
    lines = set(text.splitlines())
    return [one.name for one in found if f"| {one.name} | {one.licence} |" not in lines]


def advisories(found: Sequence[Package], url: str) -> list[str]:
    """`package version: id` for every known advisory. Raises OSError when the service does not answer."""
    queries = [
        {"package": {"name": one.name, "ecosystem": "PyPI"}, "version": one.version.partition("+")[0]}
        for one in found
    ]
    body = json.dumps({"queries": queries}).encode()
    request = urllib.request.Request(  # noqa: S310 - the address is the caller's own
        f"{url.rstrip('/')}/v1/querybatch", data=body, headers={"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        results = json.load(answer)["results"]
    return [
        f"{one.name} {one.version}: {known['id']}"
        for one, result in zip(found, results, strict=True)
        for known in result.get("vulns", [])
    ]


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """The exit status: 1 for a fault, a licence list that is out of date, or an advisory."""
    found = packages()
    if "--write" in arguments:
        LICENCES.write_text(table(found))
    wrong = list(faults(found, pins()))
    missing = unlisted(found, LICENCES.read_text() if LICENCES.exists() else "")
    if missing and IS_REFERENCE:
        some = ", ".join(missing[:5]) + " …" * (len(missing) > 5)
        wrong.append(f"infra/licences.md does not say what is: {some}; python infra/audit.py --write")
    product = sum(one.is_product for one in found)
    print(f"licences and pins: {len(found)} packages, {product} of them in the product, {len(wrong)} faults")
    wrong += _known_advisories(found, environment.get(ADVISORIES_VARIABLE))
    for line in wrong:
        print(f"audit: {line}", file=sys.stderr)
    return 1 if wrong else 0


def _known_advisories(found: Sequence[Package], url: str | None) -> list[str]:
    """The advisories, with a line that says whether anybody was asked."""
    if not url:
        print(f"advisories: skipped; {ADVISORIES_VARIABLE}=https://api.osv.dev asks for them")
        return []
    try:
        known = advisories(found, url)
    except (OSError, ValueError, KeyError) as error:
        print(f"advisories: skipped; {url} does not answer: {error}")
        return []
    print(f"advisories: {len(known)} known at {url}")
    return known


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:], os.environ))
