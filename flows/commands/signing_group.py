"""`trimtab release` and `trimtab key`: who vouches for a release, and whom this home believes."""

from __future__ import annotations

import getpass
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer
from rich.markup import escape

from flows.commands.output import (
    HOME_OPTION,
    JSON_OPTION,
    console,
    fail,
    open_records,
    print_json,
    print_table,
    visible,
)

if TYPE_CHECKING:
    from services.signing.keys import TrustedKey
    from services.store.database import Database

T = TypeVar("T")
RELEASE_ARGUMENT = typer.Argument(..., metavar="RELEASE", help="A release id under releases/.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    releases = typer.Typer(no_args_is_help=True, help="Sign and verify releases.")
    releases.command("verify")(verify)
    releases.command("sign")(sign)
    app.add_typer(releases, name="release")
    keys = typer.Typer(no_args_is_help=True, help="The home's signing key, and the keys it trusts.")
    keys.command("show")(show)
    keys.command("trust")(trust)
    keys.command("distrust")(distrust)
    keys.command("rotate")(rotate)
    app.add_typer(keys, name="key")


def verify(
    release: str = typer.Argument(None, metavar="[RELEASE]", help="A release id; default: all there are."),
    name: str = HOME_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Check every byte of a release, and whose key vouches for it; exit status 1 if nobody's does.

    Example: trimtab release verify telemarketing-0123456789ab
    """
    from services.serving.release import ReleaseError, find_release
    from services.signing.keys import SignatureError
    from services.signing.release_signature import verify_in_home

    home, _ = open_records(name)
    names = [release] if release else sorted(path.name for path in home.releases.glob("*-*"))
    found = []
    for one in names:
        try:
            key = verify_in_home(find_release(home.releases, one), home)
            found.append({"release": one, "ok": True, "signed_by": key.name, "keyid": key.keyid, "why": ""})
        except (ReleaseError, SignatureError) as error:
            found.append({"release": one, "ok": False, "signed_by": None, "keyid": None, "why": str(error)})
    if as_json:
        print_json(found)
    else:
        for line in found:
            said = f"signed by {line['signed_by']!r}, key {str(line['keyid'])[:16]}"
            word = "[green]whole[/]" if line["ok"] else "[red]refused[/]"
            told = visible(f"{line['release']}: {said if line['ok'] else line['why']}")
            console.print(f"{word} {escape(told)}", highlight=False, soft_wrap=True)
    if not all(line["ok"] for line in found):
        raise SystemExit(1)


def sign(release: str = RELEASE_ARGUMENT, name: str = HOME_OPTION, as_json: bool = JSON_OPTION) -> None:
    """Vouch for a release with this home's key: for one from elsewhere, or after a key was distrusted.

    Example: trimtab release sign telemarketing-0123456789ab
    """
    from services.ledger.ledger import append
    from services.serving.build import carry_signature
    from services.serving.release import find_release
    from services.signing.release_signature import sign_in_home

    home, db = open_records(name)
    found = find_release(home.releases, release)
    keyid = sign_in_home(found, home)
    carry_signature(found, home)
    body = {"release": found.id, "signed_by": keyid, "by": getpass.getuser()}
    append(db, "release_signed", body, service=found.service, rollout_id=None, at=time.time())
    if as_json:
        print_json({"release": found.id, "keyid": keyid})
    else:
        console.print(f"signed: {found.id} with key {keyid[:16]}", highlight=False)


def show(name: str = HOME_OPTION, as_json: bool = JSON_OPTION) -> None:
    """The keys this home trusts. With --json: what another home's `trimtab key trust` reads.

    Example: trimtab key show --json > our-keys.json
    """
    from services.signing.keys import trusted_keys

    home, _ = open_records(name)
    found = trusted_keys(home.trusted_keys_file)
    if as_json:
        print_json({"keys": [vars(key) for key in found]})
        return
    print_table("Trusted keys", ("name", "key id", "public"), [(k.name, k.keyid, k.public) for k in found])


def trust(
    file: Path = typer.Argument(
        ..., help="What `trimtab key show --json` said in the other home; - reads stdin."
    ),
    called: str = typer.Option(None, "--as", help="What to call the key here; default: its name there."),
    name: str = HOME_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Trust another home's keys: what they signed may be served here.

    Example: trimtab key trust lab-keys.json --as lab
    """
    from services.signing.keys import trust as add

    home, db = open_records(name)
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        given = [(str(one["name"]), str(one["public"])) for one in json.loads(text)["keys"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        fail(f"'FILE' must be what `trimtab key show --json` prints: {file}: {error}", code=2)
    keys = _or_refused(
        lambda: [add(home.keys, name=called or known, public=public) for known, public in given]
    )
    for key in keys:
        _put_on_record(db, "trusted", key)
    if as_json:
        print_json({"trusted": [vars(key) for key in keys]})
    else:
        names = ", ".join(f"{key.name} ({key.keyid[:16]})" for key in keys)
        console.print(f"trusted: {names}", highlight=False, markup=False)


def distrust(
    keyid: str = typer.Argument(..., help="As `trimtab key show` shows it."),
    name: str = HOME_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Trust a key no longer. What it signed does not start again until somebody signs it anew.

    Example: trimtab key distrust 2f4e…
    """
    from services.ledger.checkpoints import write_checkpoint
    from services.signing.keys import distrust as remove
    from services.signing.keys import signer_of

    home, db = open_records(name)
    gone = _or_refused(lambda: remove(home.keys, keyid))
    _put_on_record(db, "distrusted", gone)
    # What it signed of the ledger is worth nothing now: this home's own key takes it over.
    write_checkpoint(db, signer_of(home.keys, name=home.root.name), at=time.time())
    if as_json:
        print_json(vars(gone))
    else:
        console.print(f"no longer trusted: {gone.name} ({gone.keyid[:16]})", highlight=False, markup=False)


def rotate(name: str = HOME_OPTION, as_json: bool = JSON_OPTION) -> None:
    """Make a new signing key. What the old one signed stays good until `trimtab key distrust`.

    Example: trimtab key rotate
    """
    from services.signing.keys import rotate as exchange
    from services.signing.keys import trusted_keys

    home, db = open_records(name)
    keyid = exchange(home.keys, name=home.root.name).public_key.keyid
    key = next(one for one in trusted_keys(home.trusted_keys_file) if one.keyid == keyid)
    _put_on_record(db, "rotated", key)
    if as_json:
        print_json(vars(key))
    else:
        console.print(f"new signing key: {keyid}", highlight=False)


def _or_refused(act: Callable[[], T]) -> T:
    from services.signing.keys import SignatureError

    try:
        return act()
    except SignatureError as error:
        fail(str(error), code=2)


def _put_on_record(db: Database, what: str, key: TrustedKey) -> None:
    from services.ledger.ledger import append

    body = {"what": what, "name": key.name, "keyid": key.keyid, "by": getpass.getuser()}
    append(db, "key", body, service="control", rollout_id=None, at=time.time())
