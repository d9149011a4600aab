"""Nothing that we read as data can run: no pickle, no eval, no loader that executes, in the source and in a release."""

import ast
import struct
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.serving.release import JSON_FILES, MANIFEST, POLICY_FILES, SIGNATURE, WEIGHTS
from services.serving.release_command import bento_folder

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("flows", "services", "policies", "infra")
MODULES = frozenset(
    {
        "pickle",
        "cPickle",
        "_pickle",
        "dill",
        "cloudpickle",
        "joblib",
        "shelve",
        "marshal",
        "jsonpickle",
        "skops",
        "torch.serialization",
        "yaml",
        "xml.etree",
        "xml.sax",
        "xml.dom",
    }
)
CALLS = frozenset({"eval", "exec", "compile", "__import__"})
ATTRIBUTES = frozenset(
    {("torch", "load"), ("torch", "save"), ("os", "system"), ("os", "popen"), ("jit", "load")}
)
ARGUMENTS = frozenset({("shell", True), ("allow_pickle", True), ("verify", False)})


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for room in ROOMS:
        for file in sorted((ROOT / room).rglob("*.py")):
            yield file.relative_to(ROOT), ast.parse(file.read_text(encoding="utf-8"))


def suspects(tree: ast.Module) -> Iterator[str]:
    """What a module does that could run data, or a shell."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            names = []
        yield from (
            f"imports {name}" for name in names if name in MODULES or name.partition(".")[0] in MODULES
        )
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name) and called.id in CALLS:
                yield f"calls {called.id}"
            if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name | ast.Attribute):
                owner = called.value.id if isinstance(called.value, ast.Name) else called.value.attr
                if (owner, called.attr) in ATTRIBUTES:
                    yield f"calls {owner}.{called.attr}"
            for given in node.keywords:
                if isinstance(given.value, ast.Constant) and (given.arg, given.value.value) in ARGUMENTS:
                    yield f"passes {given.arg}={given.value.value}"


def test_the_source_reads_no_data_that_runs() -> None:
    """No module of the product or its tools unpickles, evaluates, or hands a line to a shell."""
    found = {f"{file}: {what}" for file, tree in sources() for what in suspects(tree)}
    assert found == set()


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load('x')",
        "torch.jit.load('x')",
        "numpy.load('x', allow_pickle=True)",
        "eval('1')",
        "subprocess.run('ls', shell=True)",
    ],
)
def test_the_search_finds_what_it_looks_for(text: str) -> None:
    """The search above is no empty one."""
    assert list(suspects(ast.parse(text)))


def is_pickle(content: bytes) -> bool:
    """Protocol 2 and later begin with PROTO and end with STOP; a zip that torch.save wrote holds a data.pkl."""
    begins = len(content) > 2 and content[0] == 0x80 and content[1] <= 5
    return (begins and content.rstrip(b"\n").endswith(b".")) or (content[:2] == b"PK" and b".pkl" in content)


@pytest.mark.e2e
def test_a_release_holds_numbers_and_words_only(target: Any) -> None:
    """The release, and its copy in the Bento: safetensors, JSON, YAML by content; nothing else, nothing executable."""
    built = bento_folder(target.release.id, target.home) / "src"
    for folder in (target.release.folder, built / "release"):
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
        assert set(files) == {WEIGHTS, MANIFEST, SIGNATURE, *JSON_FILES, *POLICY_FILES}
        assert not any(file.stat().st_mode & 0o111 for file in folder.iterdir())
        (header,) = struct.unpack("<Q", files[WEIGHTS][:8])
        assert files[WEIGHTS][8:9] == b"{"
        assert header < len(files[WEIGHTS])
        for name, content in files.items():
            assert not is_pickle(content), name
            if name != WEIGHTS:
                content.decode("utf-8")
    others = [
        file for file in built.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc", ".yaml")
    ]
    assert {file.parent.name for file in others} == {"release"}


@pytest.mark.e2e
def test_serving_loads_no_unpickler_of_ours(target: Any) -> None:
    """What of the project runs in the serving process comes from the Bento, where the search above holds as well."""
    built = bento_folder(target.release.id, target.home) / "src"
    for file in built.rglob("*.py"):
        assert list(suspects(ast.parse(file.read_text(encoding="utf-8")))) == [], file
    assert not built.is_relative_to(sysconfig.get_path("purelib"))
