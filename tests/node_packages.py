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


def skip_before_node(oldest: int, package: str) -> None:
    """Skips the test where Node is older than the package allows."""
    found = run(NODE or "", "--version").stdout.strip()
    if int(found.removeprefix("v").partition(".")[0]) < oldest:
        pytest.skip(f"{package} needs Node {oldest}, and this is {found}")


def installed(package: str, version: str, *others: str) -> Path:
    """Returns a folder that has this version of the package in its node_modules.

    The others, each as `NAME@VERSION`, are packages that it depends on; they pin what its own ranges leave open.
    """
    folder = FOLDER / f"{package}-{version}".replace("/", "-")
    folder.mkdir(parents=True, exist_ok=True)
    wanted = " ".join([f"{package}@{version}", *others])
    with (FOLDER / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "installed"
        if not done.exists() or done.read_text() != wanted:
            options = ("--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts")
            ended = run(NPM or "", "install", *options, "--fetch-retries=1", "--prefix", folder, *wanted.split())
            if ended.returncode:
                pytest.skip(f"the npm package {package} {version} cannot be fetched")
            done.write_text(wanted)
    return folder
