"""`trimtab policy schema`: the JSON Schemas that editors use for the policy files."""

from __future__ import annotations

import sys

import typer

from flows.commands.output import JSON_OPTION, console, fail, print_json


def publish_schemas(
    name: str = typer.Argument("rollout", help="contract, utility, rollout, scenarios, tests or training."),
    is_writing: bool = typer.Option(
        False, "--write", help="Write all of them to policies/schemas/ instead of printing one."
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """Print the JSON Schema of a policy file; or write all of them anew, after a change to what the files may say.

    Example: trimtab policy schema rollout
    """
    from services.rollout.schema_files import published_schemas, write_schemas

    if is_writing:
        written = [str(path) for path in write_schemas()]
        if as_json:
            print_json({"written": written})
        for path in () if as_json else written:
            console.print(f"wrote {path}", highlight=False, soft_wrap=True)
        return
    texts = published_schemas()
    file = f"{name}.schema.json"
    if file not in texts:
        fail(f"there is no schema of '{name}'; there are {', '.join(one.split('.')[0] for one in texts)}")
    sys.stdout.write(texts[file])
