"""The documents say what there is, and what there is is in the documents."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ingestion.event import SHORT_NAMES, Event, Reason, WireEvent
from orchestration.cli import footfall

ROOT = Path(__file__).parent.parent
README, ARCHITECTURE, CONTRIBUTING, CHANGELOG = (
    (ROOT / f"{name}.md").read_text() for name in ("README", "ARCHITECTURE", "CONTRIBUTING", "CHANGELOG")
)
DOCUMENTS = (README, ARCHITECTURE, CONTRIBUTING, CHANGELOG)
PACKAGES = ("ingestion", "assets", "orchestration", "serving")
SOURCES = (".py", ".sql", ".yml", ".yaml", ".toml", ".lock", ".md")

_block = re.compile(r"^```.*\n(?P<fenced>(?:.*\n)*?)^```$|(?P<indented>(?:^ {4}.*\n|^\n)+)", re.MULTILINE)
_span = re.compile(r"`([^`\n]+)`")
_command = re.compile(r"^(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?(footfall|make) ([a-z-].*)$")
_verb = re.compile(r"^([a-z-]+):.*## ", re.MULTILINE)
_setting = re.compile(r"\bFOOTFALL_[A-Z]+(?:_[A-Z]+)*\b")
_name_in_file = re.compile(r"`(\w+)`(?: in|\s*\()\s*`([\w/.]+\.(?:py|sql|yml))`")


def blocks(document: str) -> list[str]:
    """Code blocks, fenced or indented."""
    return [found["fenced"] or found["indented"] or "" for found in _block.finditer(document)]


def spans(document: str) -> list[str]:
    """Code within lines."""
    return _span.findall(_block.sub("\n", document))


def typed(program: str) -> list[str]:
    """What the documents say to type after `footfall` or `make`."""
    code = [line.strip() for document in DOCUMENTS for block in blocks(document) for line in block.splitlines()]
    code += [span for document in DOCUMENTS for span in spans(document)]
    return sorted({found[2] for line in code if (found := _command.match(line)) and found[1] == program})


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command that is no group, by what to type."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield " ".join((*path, name)), command


def options(command: click.Command) -> set[str]:
    """Its options, as they are typed."""
    return {name for option in command.params if isinstance(option, click.Option) for name in option.opts}


COMMANDS = dict(commands(footfall))
VERBS = set(_verb.findall((ROOT / "Makefile").read_text()))
SETTINGS = set(_setting.findall((ROOT / "ingestion/settings.py").read_text()))


def named(what: str) -> str | None:
    """The command that some words begin with."""
    words = what.split()
    return next((name for name in COMMANDS if words[: len(name.split())] == name.split()), None)


def test_the_documents_are_read() -> None:
    assert len(typed("footfall")) > 10
    assert len(typed("make")) > 5
    assert len(PATHS) > 20


@pytest.mark.parametrize("what", typed("footfall"))
def test_a_documented_command_exists(what: str) -> None:
    name = named(what)
    assert name is not None or isinstance(footfall.commands.get(what), click.Group), f"footfall {what}"
    if name is not None:
        for option in re.findall(r"(?<!\S)\[?(--[a-z-]+)", what):
            assert option in options(COMMANDS[name]), f"footfall {name} has no {option}"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_documented(name: str) -> None:
    told = [what for what in typed("footfall") if named(what) == name and what in README]
    assert told, f"README does not tell of `footfall {name}`"
    missing = {option for option in options(COMMANDS[name]) if not any(option in what for what in told)}
    assert not missing, f"README does not tell of {missing} of `footfall {name}`"
    assert COMMANDS[name].help


@pytest.mark.parametrize("what", typed("make"))
def test_a_documented_make_verb_exists(what: str) -> None:
    assert shlex.split(what, comments=True)[0] in VERBS


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_a_make_verb_is_documented(verb: str) -> None:
    assert f"`make {verb}`" in CONTRIBUTING


def test_settings_are_those_of_the_code() -> None:
    table = set(re.findall(r"^\| `(FOOTFALL_\w+)` \|", README, re.MULTILINE))
    assert table == SETTINGS
    assert {name for document in DOCUMENTS for name in _setting.findall(document)} <= SETTINGS


def test_event_fields_are_those_of_the_code() -> None:
    section = README.partition("\n## Events\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `") and "invalid" not in line]
    fields = {name: _span.findall(short) for long, short in rows for name in _span.findall(long)}
    fields = {name: short for name, short in fields.items() if name not in set(Reason)}
    stated = set(_span.findall(section)) & set(Event.__struct_fields__)
    assert set(Event.__struct_fields__) == stated | fields.keys()
    encoded = dict(zip(WireEvent.__struct_fields__, WireEvent.__struct_encode_fields__, strict=True))
    assert {name: short[0] for name, short in fields.items() if short} == {
        long: encoded[short] for short, long in SHORT_NAMES.items()
    }


def test_rejection_reasons_are_those_of_the_code() -> None:
    table = README.partition("\n**Rejected lines**")[2].partition("\n\n|")[2].partition("\n\n")[0]
    assert {reason for row in table.splitlines() for reason in _span.findall(row.split("|")[1])} >= set(Reason)
    assert {span for span in spans(README) if span.startswith(("invalid_", "missing_"))} <= set(Reason)


def top_level_folders() -> list[str]:
    """Folders that are part of the project: not hidden, not ignored, not empty."""
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().split()}
    return sorted(
        folder.name
        for folder in ROOT.iterdir()
        if folder.is_dir()
        and not folder.name.startswith(".")
        and folder.name not in ignored
        and any(file.is_file() and "__pycache__" not in file.parts for file in folder.rglob("*"))
    )


def is_path(span: str) -> bool:
    """Whether it names a file or folder of the project, and not one that a run makes."""
    if not re.fullmatch(r"[\w./-]+", span) or span.startswith("/"):
        return False
    first, slash, _ = span.partition("/")
    return bool(slash and (first in top_level_folders() or first == ".ci")) or span.endswith(SOURCES)


PATHS = sorted({span for document in DOCUMENTS for span in spans(document) if is_path(span)})
LINKS = sorted({link for text in DOCUMENTS for link in re.findall(r"\]\(([^)#:]+)\)", text)})


@pytest.mark.parametrize("path", PATHS + LINKS)
def test_a_named_path_exists(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize(("name", "file"), sorted(set(_name_in_file.findall(ARCHITECTURE))))
def test_a_named_thing_is_in_the_named_file(name: str, file: str) -> None:
    assert re.search(rf"\b{name}\b", (ROOT / file).read_text())


TREE = next(block for block in blocks(ARCHITECTURE) if "ingestion/ " in block)


@pytest.mark.parametrize("folder", top_level_folders())
def test_a_top_level_folder_is_in_the_tree(folder: str) -> None:
    assert re.search(rf"^ {{4}}{folder}/ ", TREE, re.MULTILINE)


def test_the_tree_names_what_exists() -> None:
    folder = ""
    for line in TREE.splitlines():
        top = re.match(r" {4}(\w+)/ ", line)
        folder = top[1] if top else folder
        assert (ROOT / folder).is_dir()
        for name in re.findall(r"(?<!\S)(\w+\.py|\w+/)(?=\s|$)", line.replace(f"{folder}/", "")):
            assert (ROOT / folder / name).exists(), f"{folder}/{name}"


def test_links_lead_to_sections() -> None:
    for document in DOCUMENTS:
        titles = re.findall(r"^#+ (.+)$", document, re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
        assert set(re.findall(r"\]\(#([^)]+)\)", document)) <= anchors


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_public_has_a_docstring(package: str) -> None:
    assert [name for file in sorted((ROOT / package).rglob("*.py")) for name in undocumented(file)] == []


def undocumented(file: Path) -> Iterator[str]:
    """What has no docstring in a file: the module, its public classes and functions, and public methods."""
    name, module = str(file.relative_to(ROOT)), ast.parse(file.read_text())
    if module.body and not ast.get_docstring(module):
        yield name
    for found in _public(module.body):
        if not ast.get_docstring(found):
            yield f"{name}:{found.lineno} {found.name}"
        if isinstance(found, ast.ClassDef):
            for method in _public(found.body):
                if not ast.get_docstring(method) and "overload" not in map(ast.unparse, method.decorator_list):
                    yield f"{name}:{method.lineno} {found.name}.{method.name}"


def _public(body: list[ast.stmt]) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    for statement in body:
        is_definition = isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if is_definition and not statement.name.startswith("_"):
            yield statement
