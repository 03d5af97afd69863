"""What the measurements were taken on."""

import os
import platform
import sqlite3
from importlib.metadata import version
from pathlib import Path

from benchmarks import generators

PACKAGES = ("convgrpc", "grpcio", "protobuf", "uvloop", "uvicorn", "httptools", "orjson")


def machine() -> dict[str, str]:
    """The processors, the system, and the versions of what takes part."""
    versions = {name: version(name) for name in PACKAGES}
    return {
        "on": f"{os.cpu_count()} CPUs, {processor()}, {platform.system()} {platform.release()}",
        "with": ", ".join(
            [
                f"Python {platform.python_version()}",
                f"SQLite {sqlite3.sqlite_version}",
                *(f"{name} {number}" for name, number in versions.items()),
            ]
        ),
        "calls by": f"{generators.name()}, {generators.OPEN_CALLS} at once",
    }


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
