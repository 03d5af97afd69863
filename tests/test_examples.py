"""The examples that the README offers for copying, as a user runs them: with unmodified packages, against the
gateway.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from convgrpc.server.app import Running

from .node_packages import NODE, installed, needs_node

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "examples"
CONFINED = Path(__file__).parent / "confined.py"
TIMEOUT = 120

LIFE = """\
message Does it rain in Oslo?
function_call call_1
function_call_output call_1
message It does.
56 tokens with the next question
deleted
"""
SESSION = """\
That was item 1.
That was item 3.
user Hello!
assistant That was item 1.
user Hello again!
assistant That was item 3.
"""
PYDANTIC_AI = """\
0 messages before: {"weather":"rain in a"}
4 messages before: {"weather":"rain in a"}
69 tokens
"""
LANGCHAIN = """\
0 messages before: [{'name': 'weather', 'args': {'city': 'Oslo'}, 'id': 'call_1', 'type': 'tool_call'}]
2 messages before: It does.
4 messages before: There too.
2 messages before: You are welcome.
"""
# What each prints, and the folder beside the other packages that has those that it needs.
IN_PYTHON = {
    "openai_python.py": ("", LIFE),
    "agents_session.py": ("openai-agents", SESSION),
    "pydantic_ai_history.py": ("pydantic-ai", PYDANTIC_AI),
    "langchain_history.py": ("langchain", LANGCHAIN),
}
IN_JAVASCRIPT = {"openai_node.mjs": LIFE}


def run(*command: str | Path, packages: str = "") -> subprocess.CompletedProcess[str]:
    """Runs a command in the environment of a user who has set nothing up."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=TIMEOUT, env={**kept, "PYTHONPATH": packages}
    )


@pytest.mark.parametrize(
    ("file", "package", "printed"), [(file, *each) for file, each in IN_PYTHON.items()], ids=IN_PYTHON
)
def test_an_example_in_python_prints_what_it_should(file: str, package: str, printed: str, server: Running) -> None:
    """It reaches no other machine, and nothing warns."""
    packages = Path(sys.prefix) / package
    if not packages.exists():
        pytest.skip(f"{package} is not installed beside the other packages")
    done = run(
        sys.executable, CONFINED, FOLDER / file, f"http://{server.http}/v1", packages=str(packages) * bool(package)
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == printed


@needs_node
@pytest.mark.parametrize(("file", "printed"), IN_JAVASCRIPT.items(), ids=IN_JAVASCRIPT)
def test_an_example_in_javascript_prints_what_it_should(
    file: str, printed: str, server: Running, tmp_path: Path
) -> None:
    """A copy of it runs where the package is installed."""
    (tmp_path / "node_modules").symlink_to(installed("openai", "6.49.0") / "node_modules")
    done = run(NODE or "", shutil.copy(FOLDER / file, tmp_path), f"http://{server.http}/v1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == printed


def test_the_readme_offers_all_examples() -> None:
    """Those that run here are all that there are, each in the table of frameworks; and they are short."""
    offered = re.findall(r"\(tests/examples/(\w+\.\w+)\)", (ROOT / "README.md").read_text())
    files = [path.name for path in FOLDER.iterdir() if path.is_file()]
    assert sorted(offered) == sorted(files) == sorted([*IN_PYTHON, *IN_JAVASCRIPT])
    assert all(len((FOLDER / file).read_text().splitlines()) <= 60 for file in files)
