"""The pages: their examples run, their links lead somewhere, and they describe all public names."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import semlock
from semlock.context import Context
from semlock.errors import warn_that_owner_died

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
DOCTESTS = ROOT / "crates" / "semlock" / "src" / "lib.rs"

# rustdoc takes a block without a language as Rust.
LANGUAGES = {"python", "rust", "sh", "text"}
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)

# The shell that an example's `sh` lines run in.
SCRIPT = """\
from multiprocessing import synchronize

assert synchronize._multiprocessing.__name__ == "semlock._multiprocessing"
"""

# The most columns of a line, but for tables and blocks.
COLUMNS = 100
MOST_LINES_OF_README = 150


class Block(NamedTuple):
    page: Path
    language: str
    text: str


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    return [Block(page, language, text) for _, language, text in FENCE.findall(page.read_text())]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def examples(language: str) -> list[Any]:
    return [
        pytest.param(block.text, id=f"{name_of(page)}-{number}")
        for page in PAGES
        for number, block in enumerate(of_language(page, language), 1)
    ]


def of_language(page: Path, language: str) -> list[Block]:
    return [block for block in blocks(page) if block.language == language]


each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


# ---- Examples ----


@each_page
def test_each_block_is_closed_and_says_its_language(page: Path) -> None:
    assert page.read_text().count("```") == 2 * len(blocks(page))
    assert {block.language for block in blocks(page)} <= LANGUAGES


@pytest.mark.parametrize("example", examples("python"))
def test_an_example_runs_and_prints_what_its_comments_say(example: str, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(example)
    printed = re.findall(r"^ *print\(.*\)  # (.*)$", example, re.MULTILINE)
    # An example says what it warns of.
    warns = "# OwnerDiedWarning" in example
    filters = ["-W", "error", *(["-W", "default:process:RuntimeWarning"] if warns else [])]
    result = subprocess.run(
        [sys.executable, *filters, str(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, "OwnerDiedWarning: process" in result.stderr) == (0, warns)
    assert warns or result.stderr == ""
    assert result.stdout.splitlines() == printed


@pytest.mark.parametrize("example", examples("sh"))
def test_what_a_shell_example_runs_on_python_works(example: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "module.py").touch()
    for line in example.splitlines():
        program, *arguments = line.split()
        if program == "python":
            subprocess.run([sys.executable, *arguments], cwd=tmp_path, timeout=60, check=True)


@each_page
def test_each_task_of_cargo_that_a_page_names_is_one(page: Path) -> None:
    source = (ROOT / "xtask" / "src" / "main.rs").read_text()
    tasks = re.findall(r"^    ([A-Z]\w*)\b", source.split("enum Task {")[1].split("\n}")[0], re.M)
    named = set(re.findall(r"cargo xtask ([a-z]+)", page.read_text()))
    assert named <= {task.lower() for task in tasks}


def test_rust_examples_are_doctests() -> None:
    with_rust = {name_of(page) for page in PAGES if of_language(page, "rust")}
    included = re.findall(r'include_str!\("(?:\.\./)*(.*?)"\)', DOCTESTS.read_text())
    assert with_rust == set(included)


def test_a_warning_that_a_page_shows_is_the_one_that_comes() -> None:
    with pytest.warns(semlock.OwnerDiedWarning) as warned:
        warn_that_owner_died(1234, "Lock")
    comes = without_numbers_and_lines(f"OwnerDiedWarning: {warned[0].message}")
    texts = [block.text for page in PAGES for block in of_language(page, "text")]
    shown = [without_numbers_and_lines(text) for text in texts if "OwnerDiedWarning: " in text]
    assert shown
    assert all(comes in text for text in shown)


def without_numbers_and_lines(text: str) -> str:
    return re.sub(r"process \d+", "process N", " ".join(text.split()))


# ---- Links ----


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes from a page's headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.*)$", prose(page), re.MULTILINE):
        text = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).replace("`", "")
        anchor = re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")
        assert anchor not in found, f"{name_of(page)} has two headings {heading!r}"
        found.add(anchor)
    return found


@each_page
def test_each_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        place, _, anchor = target.partition("#")
        file = (page.parent / place).resolve() if place else page
        assert file.exists(), target
        assert file.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(file), target


def test_each_page_is_linked_from_the_readme() -> None:
    readme = prose(ROOT / "README.md")
    linked = {target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", readme)}
    assert {name_of(page) for page in PAGES} - linked == {"README.md"}


# ---- Form ----


@each_page
def test_lines_end_in_time(page: Path) -> None:
    lines = [line for line in prose(page).splitlines() if not line.startswith(("|", "!["))]
    assert [line for line in lines if len(line) > COLUMNS] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_LINES_OF_README


# ---- The Python API ----


def section(title: str) -> str:
    found = re.search(
        rf"^## {title}\n(.*?)(?=^## |\Z)",
        (ROOT / "docs" / "python.md").read_text(),
        re.DOTALL | re.MULTILINE,
    )
    assert found, f"docs/python.md has no section {title!r}"
    return found[1]


@pytest.mark.parametrize("name", semlock.__all__)
def test_each_public_name_has_its_section(name: str) -> None:
    assert section(name)


# If two classes share a method, one class's section describes it.
CLASSES = {
    "Lock": "",
    "RLock": "Lock",
    "Semaphore": "",
    "BoundedSemaphore": "Semaphore",
    "Condition": "",
    "Event": "",
    "Barrier": "",
}


@pytest.mark.parametrize("name", CLASSES)
def test_each_public_method_and_argument_of_a_class_is_described(name: str) -> None:
    cls, described, like = getattr(semlock, name), section(name), CLASSES[name]
    if like:
        assert f"(#{like.lower()})" in described
        described += section(like)
    for member in dir(cls):
        assert member.startswith("_") or f"**`{member}" in described, member
    for argument in inspect.signature(cls).parameters:
        assert re.search(rf"\b{argument}\b", described), argument


def test_each_maker_of_a_context_is_described() -> None:
    described = section("get_context")
    for name, maker in vars(Context).items():
        if name[0].isupper() and inspect.isfunction(maker):
            assert f"`{name}(" in described, name
            for argument in list(inspect.signature(maker).parameters)[1:]:
                assert re.search(rf"\b{argument}\b", described), (name, argument)
