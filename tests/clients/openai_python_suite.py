"""Runs openai-python's own tests of conversations and of token counts against the gateway instead of a mock server.

Run as `python -m tests.clients.openai_python_suite BASE_URL FOLDER`. It downloads the source distribution of the
installed version into FOLDER once, with the packages that its tests need. It prints the test classes that passed, one a
line. Its exit status is 75 when the package index cannot be reached.

The tests run unchanged, through the proxy in `suite_proxy`.
"""

import fcntl
import os
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

from .suite_proxy import suite_proxy

FOLDER = "tests/api_resources"
SUITES = (
    "test_conversations.py",
    "conversations/test_items.py",
    "responses/test_input_tokens.py",
    "beta/responses/test_input_tokens.py",
)

# What the tests need besides what is installed, and what of it must not bring a second pytest.
NEEDS = (["aiohttp==3.14.5", "rich==15.0.0"], ["--no-deps", "pytest-asyncio==1.5.0"])
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--retries", "1")

# The package's own settings of pytest are kept, but for the flags, which ask for a plugin that is not needed.
OPTIONS = ("-o", "addopts=", "-p", "pytest_asyncio.plugin")
VARIABLES = {"PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

UNAVAILABLE = 75


def fetched(folder: Path) -> tuple[Path, Path]:
    """Downloads what is missing. Returns the folder of the package's sources and that of what its tests need."""
    name = f"openai-{version('openai')}"
    source, needs = folder / name, folder / f"{name}-needs"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / f"{name}-fetched"
        if not done.exists() or done.read_text() != repr(NEEDS):
            pip("download", "--no-deps", "--no-binary", "openai", "--dest", folder, name.replace("-", "=="))
            with tarfile.open(folder / f"{name}.tar.gz") as archive:
                archive.extractall(folder, filter="data")
            for packages in NEEDS:
                pip("install", "--upgrade", "--target", needs, *packages)
            done.write_text(repr(NEEDS))
    return source, needs


def pip(*arguments: str | Path) -> None:
    ended = subprocess.run([*PIP, *arguments], check=False, capture_output=True, text=True)
    if ended.returncode:
        print(ended.stderr or ended.stdout, file=sys.stderr)
        sys.exit(UNAVAILABLE)


def class_name(case: ElementTree.Element) -> str:
    """Returns the name of a test case's class, after the path of its module."""
    return case.attrib["classname"].removeprefix(FOLDER.replace("/", ".") + ".")


def main(base_url: str, folder: str) -> None:
    source, needs = fetched(Path(folder).resolve())
    report = source / f"report-{os.getpid()}.xml"
    with suite_proxy(base_url) as url:
        ended = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                *OPTIONS,
                "--junit-xml",
                report,
                *(f"{FOLDER}/{suite}" for suite in SUITES),
            ],
            check=False,
            cwd=source,
            stdout=sys.stderr,
            env={**os.environ, **VARIABLES, "PYTHONPATH": str(needs), "TEST_API_BASE_URL": url},
        )
    if ended.returncode:
        sys.exit(ended.returncode)
    cases = list(ElementTree.parse(report).iter("testcase"))
    report.unlink()
    assert cases
    assert not [case for case in cases if len(case)], "tests were skipped"
    print("\n".join(sorted({class_name(case) for case in cases})))
    print(f"{len(cases)} tests", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
