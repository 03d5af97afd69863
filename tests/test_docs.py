"""The pages in docs/ and the README: what they name exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "convgrpc"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
GENERATED = {"v1", "options"}


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_relative_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_architecture_names_files_that_exist() -> None:
    """Paths are those in the package, or in the repository."""
    paths = set(re.findall(r"(?<![\w/])(?:\w+/)*\w+(?:\.py|\.proto)\b|(?<=`)(?:\w+/)+(?=`)", ARCHITECTURE))
    assert len(paths) > 30
    assert [path for path in sorted(paths) if not (PACKAGE / path).exists() and not (ROOT / path).exists()] == []


def test_architecture_names_every_folder() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - GENERATED
    assert [folder for folder in sorted(folders) if f"`{folder}/`" not in ARCHITECTURE] == []


def test_architecture_names_the_threads() -> None:
    """Those of the code, by the names that tools such as `top -H` show."""
    source = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py") if "_pb2" not in path.name)
    named = re.findall(r'FairThreads\(\w+, "([^"]+)"|threading\.Thread\([^)]*name="(convgrpc-[^"]+)"', source)
    threads = {one or other for one, other in named}
    assert len(threads) >= 6
    assert [thread for thread in sorted(threads) if f"`{thread}`" not in ARCHITECTURE] == []
