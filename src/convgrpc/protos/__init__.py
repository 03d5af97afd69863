"""The contract as .proto files, for those who generate code of it: `python -m convgrpc.protos --out DIR`."""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from google.rpc import status_pb2

# Beside this module in a wheel, at the root of a checkout.
_INSTALLED = Path(__file__).parent
CONTRACT = _INSTALLED if (_INSTALLED / "convgrpc").is_dir() else _INSTALLED.parents[2] / "protos"
GOOGLE = Path(status_pb2.__file__).parents[2]

# What gRPC reports errors as, which the contract does not import.
_ERRORS = ("google/rpc/error_details.proto", "google/rpc/status.proto")
# Which calls are safe to repeat, for gRPC clients in any language.
_SERVICE_CONFIG = "convgrpc/v1/convgrpc_grpc_service_config.json"
_SHIPPED_CONFIG = _INSTALLED.parent / "client" / "service_config.json"
# Those of protobuf itself come with every generator.
_BUILT_IN = "google/protobuf/"


def write(folder: Path) -> None:
    """Writes the contract's files, those that they import, those of errors, and a gRPC service config, each below
    `folder` by its import path.

    Files of the same names are overwritten, others stay. Raises `OSError` for a folder that cannot be made or written.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    for name, source in files().items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())


def files() -> dict[str, Path]:
    """The files that `write` writes, by their import paths."""
    contract = {
        path.relative_to(CONTRACT).as_posix(): path for path in sorted((CONTRACT / "convgrpc").rglob("*.proto"))
    }
    pending = [*_ERRORS, *(name for path in contract.values() for name in _imports(path))]
    found = dict(contract)
    while pending:
        name = pending.pop()
        if name not in found and not name.startswith(_BUILT_IN):
            found[name] = GOOGLE / name
            pending += _imports(found[name])
    return {**found, _SERVICE_CONFIG: _SHIPPED_CONFIG}


def _imports(path: Path) -> Iterator[str]:
    return (match[1] for match in re.finditer(r'^import (?:public )?"(.+)";', path.read_text("utf-8"), re.MULTILINE))
