"""Which module may know which: kept here, so that it stays true."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "convgrpc"
GENERATED = {"v1", "options"}

# cli → server → handlers → {contract, storage, tokens} → errors, ids → v1, and client → {contract, errors, ids, v1}. A
# layer is a folder, or a module that stands alone.
MAY_IMPORT = {
    "__init__": {"client", "contract", "errors"},
    "__main__": {"cli"},
    "cli": {"__init__", "errors", "protos", "server", "settings", "storage", "tokens", "v1"},
    "client": {"contract", "errors", "ids", "v1"},
    "testing": {"client", "server", "settings"},
    "server": {"contract", "errors", "fairness", "handlers", "ids", "settings", "storage", "v1"},
    "handlers": {"contract", "errors", "fairness", "ids", "settings", "storage", "tokens", "v1"},
    "contract": {"errors", "options", "v1"},
    "storage": {"errors", "fairness", "ids", "v1"},
    "tokens": {"contract", "errors", "ids", "v1"},
    "errors": {"options", "v1"},
    "fairness": set(),
    "ids": set(),
    "protos": set(),
    "settings": set(),
}
FRONTS = {"grpc", "grpc_health", "grpc_reflection", "grpc_status", "httptools", "starlette", "uvicorn", "uvloop"}
DATABASES = {"sqlite3", "sqlite_utils"}
CONSTRUCTED_BY_APP = {"Gateway", "GrpcServer", "SqliteStore"}

FILES = {
    str(path.relative_to(SOURCE)): ast.parse(path.read_text())
    for path in sorted(SOURCE.rglob("*.py"))
    if path.relative_to(SOURCE).parts[0] not in GENERATED
}
each_file = pytest.mark.parametrize("file", FILES)


def layer(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def imported(file: str) -> Iterator[str]:
    """The modules that a file imports, wherever in the file, and what it takes from them: `convgrpc.storage.sqlite.store`."""
    for node in ast.walk(FILES[file]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_layers(file: str) -> set[str]:
    parts = [name.split(".") for name in imported(file) if name.split(".")[0] == "convgrpc"]
    found = {each[1] if len(each) > 1 else "__init__" for each in parts}
    return {name if name in MAY_IMPORT or name in GENERATED else "__init__" for name in found} - {layer(file)}


def imports(file: str, packages: set[str]) -> set[str]:
    return {name for name in imported(file) if name.split(".")[0] in packages}


@each_file
def test_modules_import_only_what_is_below_them(file: str) -> None:
    assert imported_layers(file) <= MAY_IMPORT[layer(file)]


@each_file
def test_only_the_fronts_know_grpc_and_http(file: str) -> None:
    if layer(file) not in ("cli", "client", "server", "testing"):
        assert imports(file, FRONTS) == set()
        assert [name for name in imported(file) if "_pb2_grpc" in name] == []


@each_file
def test_only_the_store_knows_sql(file: str) -> None:
    if not file.startswith("storage/sqlite/"):
        assert imports(file, DATABASES) == set()


@each_file
def test_handlers_know_neither_json_nor_the_database(file: str) -> None:
    if layer(file) == "handlers":
        codecs = ("convgrpc.contract.decoder", "convgrpc.contract.encoder")
        assert [name for name in imported(file) if name.startswith(codecs)] == []
        storage = [name for name in imported(file) if name.startswith("convgrpc.storage")]
        assert [name for name in storage if not name.startswith("convgrpc.storage.interface.")] == []
        assert imports(file, {"json", "orjson"}) == set()


def test_the_pipeline_knows_no_transport() -> None:
    assert imports("server/pipeline.py", FRONTS | {"orjson"}) == set()


@each_file
def test_only_the_app_constructs(file: str) -> None:
    """`SqliteStore(…)` and `SqliteStore.open(…)` alike."""
    constructed = {
        name.id
        for node in ast.walk(FILES[file])
        if isinstance(node, ast.Call)
        for name in [node.func.value if isinstance(node.func, ast.Attribute) else node.func]
        if isinstance(name, ast.Name) and name.id in CONSTRUCTED_BY_APP
    }
    assert constructed <= (CONSTRUCTED_BY_APP if file == "server/app.py" else set())


def test_the_app_constructs_both_fronts_and_the_store() -> None:
    """So that the rule above fails when a name changes."""
    names = {node.id for node in ast.walk(FILES["server/app.py"]) if isinstance(node, ast.Name)}
    assert names >= CONSTRUCTED_BY_APP
