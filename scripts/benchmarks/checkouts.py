"""Checkouts of the service, and the Python that runs the server of each."""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.processes import SCRIPTS, inherited

TIMEOUT = 60
USAGE_ERROR = 2
"""The exit code of `convgrpc` for a command or an option that it does not have."""


class Checkout(NamedTuple):
    """A checkout of this repository, and the Python that has the dependencies of its server."""

    root: Path
    python: str = sys.executable

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that make `python -m convgrpc` run the source of this checkout."""
        return {"PYTHONPATH": str(self.root / "src")}

    @property
    def commit(self) -> str:
        """The short commit, with a plus sign if files differ from it; the folder's name outside git."""
        command = ["git", "-C", str(self.root), "describe", "--always", "--exclude=*", "--dirty=+"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT)
        return done.stdout.strip() or self.root.name

    def convgrpc(self, *arguments: object) -> list[object]:
        """Returns the command that runs `convgrpc` of this checkout."""
        return [self.python, "-m", "convgrpc", *arguments]

    def has_metrics(self) -> bool:
        """Tells whether `convgrpc serve` has the option `--metrics`."""
        return "--metrics" in self._help("serve")

    def has_keys(self) -> bool:
        """Tells whether there is the command `convgrpc keys create`."""
        return bool(self._help("keys", "create"))

    def _help(self, *command: str) -> str:
        """Returns the help of a command, or an empty string if there is no such command."""
        done = subprocess.run(
            list(map(str, self.convgrpc(*command, "--help"))),
            cwd=SCRIPTS,
            env=inherited() | self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
        if done.returncode not in (0, USAGE_ERROR):
            sys.exit(
                f"convgrpc: the server of {self.root} cannot run: {(done.stderr.splitlines() or ['no reason'])[-1]}"
            )
        return "" if done.returncode else done.stdout


HERE = Checkout(SCRIPTS.parent)


def checkout(root: Path) -> Checkout:
    """Returns the checkout in a folder, after making its environment if its dependencies differ from those here.

    Raises:
        ValueError: The folder is not a checkout.
    """
    root = root.resolve()
    for path in ("pyproject.toml", "src/convgrpc/__main__.py"):
        if not (root / path).is_file():
            raise ValueError(f"{root} is not a checkout of convgrpc: it has no {path}")
    if dependencies(root) == dependencies(HERE.root):
        return Checkout(root)
    command = [str(root / "scripts" / "environment"), "serve"]
    made = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if made.returncode:
        sys.exit(f"convgrpc: this failed: {' '.join(command)}")
    return Checkout(root, made.stdout.strip())


def dependencies(root: Path) -> tuple[Any, ...]:
    """Returns the parts of `pyproject.toml` that decide what the environment of a server has."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return tuple(project.get(key) for key in ("requires-python", "dependencies", "optional-dependencies"))
