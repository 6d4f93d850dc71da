"""The tree's promises: imports point one way, no cycles, a light front door, docstring-only packages."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("benchmarks", "mom", "router", "slices")  # each may import itself and those to its right
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
FOLDERS = {".".join(path.parent.relative_to(ROOT).parts) for path in SOURCES}
HEAVY = ("torch", "transformers", "ray", "llama_cpp", "sklearn", "sentence_transformers", "gguf", "fastapi")


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> set[str]:
    """Our own modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & {module_of(source) for source in SOURCES}


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_imports_point_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    allowed = PACKAGES[PACKAGES.index(package) :]
    wrong = {name for name in imports_of(path) if name.split(".")[0] not in allowed}
    assert not wrong


def test_no_cycles() -> None:
    graph = {module_of(path): imports_of(path) - {module_of(path), *PACKAGES} for path in SOURCES}
    assert list(TopologicalSorter(graph).static_order())


def room_of(module: str) -> str:
    """The folder that a module lies in; what lies directly in a package is a room of its own."""
    package, _, name = module.rpartition(".")
    return package if "." in package else f"{package}.{name}"


IMPORTS = {module_of(path): {found for found in imports_of(path) if found not in FOLDERS} for path in SOURCES}


def room_graph() -> dict[str, set[str]]:
    """Which folders each folder imports from."""
    graph: dict[str, set[str]] = {}
    for module, found in IMPORTS.items():
        graph.setdefault(room_of(module), set()).update(map(room_of, found))
    return {room: found - {room} for room, found in graph.items()}


def test_no_cycles_between_folders() -> None:
    assert list(TopologicalSorter(room_graph()).static_order())


FLOORS = (
    ("embedding",), ("routing",), ("training", "experts"), ("engine",),
    ("api", "api.middleware"), ("serving",),
)  # fmt: skip


def test_the_router_is_built_in_floors() -> None:
    """A folder of router/ imports from its own floor and those below."""
    floor = {f"router.{name}": number for number, names in enumerate(FLOORS) for name in names}
    assert set(floor) == {room for room in room_graph() if room.startswith("router.") and room in FOLDERS}
    for room, found in room_graph().items():
        for other in found & set(floor):
            assert room not in floor or floor[other] <= floor[room], f"{room} imports from {other}"


TESTS = sorted(path for path in (ROOT / "tests").rglob("test_*.py") if path.parent != ROOT / "tests")


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_mirror_the_tree(path: Path) -> None:
    """A test lies in the folder that mirrors the one whose code it tests: a folder that holds modules."""
    mirrored = ROOT / path.parent.relative_to(ROOT / "tests")
    assert any(file.name != "__init__.py" for file in mirrored.glob("*.py")), mirrored


def test_no_lazy_import_of_our_own() -> None:
    """Only commands import our own modules inside functions: the command line must stay light."""
    for path in SOURCES:
        if module_of(path).startswith(("mom.cli", "mom.commands.")):
            continue
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                inner = [n for n in ast.walk(function) if isinstance(n, ast.ImportFrom) and n.module]
                ours = [n.module for n in inner if (n.module or "").split(".")[0] in PACKAGES]
                assert not ours, f"{path}: {function.name} imports {ours}"


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name == "__init__.py"], ids=module_of)
def test_packages_hold_a_docstring_only(path: Path) -> None:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    assert isinstance(body[0], ast.Expr)
    rest = [ast.unparse(node).split(" = ")[0] for node in body[1:]]
    assert rest in ([], ["__version__"])


def test_no_file_changes_the_import_path() -> None:
    changed = "sys" + ".path"
    files = [path for folder in (*PACKAGES, "tests") for path in (ROOT / folder).rglob("*.py")]
    assert not [path for path in files if changed in path.read_text(encoding="utf-8")]


def test_front_door_is_light() -> None:
    slow = (*HEAVY, "pydantic", "numpy")  # pydantic alone doubled the time of `mom --help` once
    code = f"import sys, mom.cli; print([m for m in {slow!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_every_file_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_the_architecture_page_names_every_file() -> None:
    """Its tree has a line for each module, under its folder, and none for what is gone."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed: set[str] = set()
    above: list[str] = []
    for line in page.split("## The tree")[1].split("```")[1].strip().splitlines():
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        above = [*above[:depth], name.rstrip("/")]
        if name.endswith(".py"):
            listed.add("/".join(above))
    real = {str(path.relative_to(ROOT)) for path in SOURCES}
    assert listed == {name for name in real if Path(name).name not in ("__init__.py", "__main__.py")}
