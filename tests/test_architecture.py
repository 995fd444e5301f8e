"""The house: imports only downwards, files of readable size, every dependency declared."""

import ast
import re
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import fedlora_kit

PACKAGE = Path(fedlora_kit.__file__).parent
ROOT = PACKAGE.parent
FLOORS = [
    "__init__",
    "errors",
    "disk",
    "surroundings",
    "paths",
    "devices",
    "mirror",
    "hub_errors",
    "hub",
    "randomness",
    "looks",
    "columns",
    "numerals",
    "partition",
    "data",
    "models",
    "pretraining",
    "adapter",
    "privacy",
    "methods",
    "training",
    "conformance",
    "experiments",
    "flower",
    "planning",
    "running",
    "study",
    "papers",
    "reporting",
    "notebook",
    "fetching",
    "engines",
    "batch",
    "cli",
]
FILES = sorted(PACKAGE.rglob("*.py"))
# the package's name for what it imports, where that differs from the name on the index
DISTRIBUTION = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}


def room(module):
    return module.split(".")[1] if "." in module else "__init__"


def imports(path, modules=()):
    """Module and line of each import; of ``from package import name`` the name, where it is a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                inside = node.module == "fedlora_kit" or full in modules
                yield full if inside else node.module or "", node.lineno


def test_imports_go_downwards():
    for path in FILES:
        here = path.relative_to(PACKAGE).with_suffix("").parts[0]
        assert here in FLOORS, f"{here} has no floor: add it to FLOORS in this test"
        for module, line in imports(path):
            if module.split(".")[0] == "fedlora_kit" and room(module) != "__version__":
                assert FLOORS.index(room(module)) <= FLOORS.index(here), f"{path}:{line} imports {module}"


def test_nothing_imports_in_a_circle():
    """Files of the package, and the rooms of its papers, whatever stands inside functions."""
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in FILES}
    files, rooms = TopologicalSorter(), TopologicalSorter()
    for name, path in names.items():
        for module, _ in imports(path, names):
            if module in names and module != name:
                files.add(name, module)
                if len({paper_of(name), paper_of(module)} - {None}) == 2:
                    rooms.add(paper_of(name), paper_of(module))
    files.prepare()  # raises CycleError, which names the files
    rooms.prepare()


def paper_of(module):
    """The room of a paper that a module belongs to."""
    parts = module.split(".")
    return parts[2] if parts[1:2] == ["papers"] and len(parts) > 3 else None


def test_no_room_holds_more_than_one_can_look_over():
    many = {f.parent for f in FILES if len(list(f.parent.glob("*.py"))) > 26}
    assert not many


def test_no_file_grows_past_what_one_can_read():
    assert not [path for path in FILES if len(path.read_text().splitlines()) > 310]


def test_every_import_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    extras = [name for extra in optional if extra != "dev" for name in optional[extra]]
    named = [*project["dependencies"], *extras]
    declared = {re.split(r"[=<>~\[ ]", d)[0].lower().replace("_", "-") for d in named}
    used = {module.split(".")[0] for path in FILES for module, _ in imports(path)}
    used -= {"fedlora_kit", *sys.stdlib_module_names}
    missing = {
        name for name in used if DISTRIBUTION.get(name, name).lower().replace("_", "-") not in declared
    }
    assert not missing


def test_public_modules_functions_and_classes_have_docstrings():
    bare = []
    for path in FILES:
        tree = ast.parse(path.read_text())
        name = path.relative_to(PACKAGE)
        if path.read_text().strip() and ast.get_docstring(tree) is None:
            bare.append(str(name))
        for node in tree.body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if public and ast.get_docstring(node) is None:
                bare.append(f"{name}:{node.name}")
    assert not bare


PRINTING = {"flower", "study", "papers", "reporting", "fetching", "engines", "batch", "cli"}


def test_numbers_that_people_read_go_through_numerals():
    """Fixed decimals in a format lose small numbers; `numerals` does not."""
    some = [path for path in FILES if path.relative_to(PACKAGE).parts[0] in PRINTING]
    assert not [p for p in some if re.search(r":[+,]*\.(\d+f|\{\w+\}f|[1-9]%)\}", p.read_text())]
