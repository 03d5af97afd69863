"""Which module may know which: kept here, so that it stays true."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "convgrpc"
GENERATED = {"v1", "options"}

# cli → service → {contract, store, tokens} → errors, ids → v1, and client → {contract, errors, ids, v1}. A layer is a
# folder, or a module that stands alone.
MAY_IMPORT = {
    "__init__": {"client", "contract", "errors"},
    "__main__": {"cli"},
    "cli": {"__init__", "count_command", "errors", "keys_command", "logs", "protos", "service", "settings", "store"},
    "count_command": {"errors", "tokens", "v1"},
    "keys_command": {"errors", "service", "settings", "store"},
    "client": {"contract", "errors", "ids", "v1"},
    "testing": {"client", "service", "settings"},
    "service": {"contract", "errors", "fair_threads", "ids", "loop_turns", "settings", "store", "tokens", "v1"},
    "contract": {"errors", "options", "v1"},
    "store": {"errors", "fair_threads", "ids", "loop_turns", "v1"},
    "tokens": {"contract", "errors", "ids", "v1"},
    "errors": {"options", "v1"},
    "fair_threads": set(),
    "ids": set(),
    "loop_turns": set(),
    "protos": set(),
    "settings": set(),
    "logs": set(),
}
FRONTS = {"grpc", "grpc_health", "grpc_reflection", "grpc_status", "httptools", "starlette", "uvicorn", "uvloop"}
DATABASES = {"sqlite3", "sqlite_utils"}
CONSTRUCTED_BY_SERVER = {"Gateway", "GrpcServer", "SqliteStore"}

FILES = {
    str(path.relative_to(SOURCE)): ast.parse(path.read_text())
    for path in sorted(SOURCE.rglob("*.py"))
    if path.relative_to(SOURCE).parts[0] not in GENERATED
}
each_file = pytest.mark.parametrize("file", FILES)


def layer(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def imported(file: str) -> Iterator[str]:
    """The modules that a file imports, wherever in the file, and what it takes from them: `convgrpc.store.sqlite`."""
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
    if layer(file) not in ("cli", "client", "service", "testing"):
        assert imports(file, FRONTS) == set()
        assert [name for name in imported(file) if "_pb2_grpc" in name] == []


@each_file
def test_only_stores_know_sql(file: str) -> None:
    if layer(file) != "store":
        assert imports(file, DATABASES) == set()


@pytest.mark.parametrize("handlers", ["conversations", "input_tokens", "responses"])
def test_handlers_know_neither_json_nor_the_database(handlers: str) -> None:
    names = set(imported(f"service/{handlers}.py"))
    assert [name for name in names if name.startswith(("convgrpc.contract.decoder", "convgrpc.contract.encoder"))] == []
    stores = [name for name in names if name.startswith("convgrpc.store")]
    assert [name for name in stores if not name.startswith("convgrpc.store.protocol.")] == []
    assert imports(f"service/{handlers}.py", FRONTS | {"json", "orjson"}) == set()


def test_the_chain_knows_no_transport() -> None:
    assert imports("service/chain.py", FRONTS | {"orjson"}) == set()


@each_file
def test_only_the_server_constructs(file: str) -> None:
    """`SqliteStore(…)` and `SqliteStore.open(…)` alike."""
    constructed = {
        name.id
        for node in ast.walk(FILES[file])
        if isinstance(node, ast.Call)
        for name in [node.func.value if isinstance(node.func, ast.Attribute) else node.func]
        if isinstance(name, ast.Name) and name.id in CONSTRUCTED_BY_SERVER
    }
    assert constructed <= (CONSTRUCTED_BY_SERVER if file == "service/server.py" else set())


def test_the_server_constructs_both_fronts_and_the_store() -> None:
    """So that the rule above fails when a name changes."""
    names = {node.id for node in ast.walk(FILES["service/server.py"]) if isinstance(node, ast.Name)}
    assert names >= CONSTRUCTED_BY_SERVER
