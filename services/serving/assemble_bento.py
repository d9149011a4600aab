"""Run as a script in a process of its own: turns a staged build context into a Bento in the store.

A separate process, because BentoML imports the service to build it, and that import must come from the staged
context and not from the source tree that the caller has already loaded. Reads one JSON object from standard
input; must never import anything of the project.
"""

import json
import sys


def main() -> None:
    """Build the Bento that standard input describes and print its tag."""
    order = json.load(sys.stdin)
    import bentoml

    bento = bentoml.bentos.build(
        "services.serving.service:DecisionService",
        name=order["name"],
        version=order["version"],
        include=order["include"],
        build_ctx=order["context"],
        labels=order["labels"],
        description=order["description"],
        python={"packages": order["packages"], "lock_packages": False},
    )
    print(bento.tag)


if __name__ == "__main__":
    main()
