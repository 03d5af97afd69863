"""Packages of npm for tests: each in a folder of its own, installed once."""

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "build" / "node"
TIMEOUT = 120

NODE, NPM = shutil.which("node"), shutil.which("npm")

needs_node = pytest.mark.skipif(not (NODE and NPM), reason="node and npm are not installed")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=TIMEOUT)


def installed(package: str, version: str) -> Path:
    """A folder that has this version of the package in its node_modules."""
    folder = FOLDER / f"{package}-{version}"
    folder.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{package}-{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "installed"
        if not done.exists():
            options = ("--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts")
            ended = run(NPM or "", "install", *options, "--fetch-retries=1", "--prefix", folder, f"{package}@{version}")
            if ended.returncode:
                pytest.skip(f"the npm package {package} {version} cannot be fetched")
            done.touch()
    return folder
