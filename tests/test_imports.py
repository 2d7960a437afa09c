"""The arrows between packages (n2n -> envs -> search_spaces) and between the rooms of n2n, read from the source."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("search_spaces", "envs", "n2n")  # each may import those before it
ROOMS = ("networks", "data", "distill", "scores", "evaluate", "reward", "agents", "search", "policies", "report", "cli")
# These put the rooms together: they import every room but cli, and only cli imports them.
COMPOSITION = ("n2n", "n2n.calibration", "n2n.comparison", "n2n.doctor", "n2n.inspection", "n2n.job", "n2n.job_agents",
               "n2n.main_job", "n2n.population", "n2n.space_job", "n2n.space_main")  # fmt: skip
COMPOSITION_PACKAGES = ("n2n.sweep",)  # so does every module of these
HEAVY = {
    "ray": "n2n.evaluate.ray_pool",
    "matplotlib": "n2n.report.plots",
    "stable_baselines3": "n2n.agents.sb3_ppo",
    "sb3_contrib": "n2n.agents.sb3_ppo",
    "onnx": "n2n.search.export.onnx_file",
    "onnxruntime": "n2n.search.export.onnx_file",
}


@dataclass(frozen=True)
class Import:
    """`source` imports `target`; `eager` where the import runs as soon as `source` is imported."""

    source: str
    target: str
    line: int
    eager: bool

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


def module_name(root: Path, file: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(root: Path) -> dict[str, Path]:
    return {module_name(root, file): file for package in PACKAGES for file in sorted((root / package).rglob("*.py"))}


def statements(node: ast.AST, eager: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Every import statement below `node`, with whether it runs at import time."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, eager
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from statements(child, False)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for inner in child.body:
                yield from statements(ast.Module([inner], []), False)
            for inner in child.orelse:
                yield from statements(ast.Module([inner], []), eager)
        else:
            yield from statements(child, eager)


def imports(root: Path) -> list[Import]:
    known = modules(root)
    found = []
    for source, file in known.items():
        package = source if file.name == "__init__.py" else source.rpartition(".")[0]
        for node, eager in statements(ast.parse(file.read_text(encoding="utf-8")), True):
            for target in targets(node, package, known):
                found.append(Import(source, target, node.lineno, eager))
    return found


def targets(node: ast.Import | ast.ImportFrom, package: str, known: dict[str, Path]) -> list[str]:
    """The modules that one statement imports; `from a import b` is a.b where that is a module of ours, otherwise a."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        above = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*above, *([base] if base else [])])
    return [name if (name := f"{base}.{alias.name}") in known else base for alias in node.names]


def wrong_arrows(root: Path) -> list[str]:
    """Imports that run from a package or room to one that is not on its left."""
    return [f"{item}: {why}" for item in imports(root) if (why := objection(item))]


def objection(item: Import) -> str:
    source, target = item.source.split("."), item.target.split(".")
    if target[0] not in PACKAGES:
        return "nobody imports tests or scripts" if target[0] in ("tests", "scripts") else ""
    if PACKAGES.index(target[0]) > PACKAGES.index(source[0]):
        return f"{source[0]} may not import {target[0]}"
    if source[0] != "n2n" or target[0] != "n2n":
        return ""
    return room_objection(item, source, target)


def composes(module: str) -> bool:
    return module in COMPOSITION or any(f"{module}.".startswith(f"{package}.") for package in COMPOSITION_PACKAGES)


def room_objection(item: Import, source: list[str], target: list[str]) -> str:
    if composes(item.target):
        allowed = composes(item.source) or source[1] == "cli"
        return "" if allowed else "only n2n.cli may import a module that puts the rooms together"
    if target[1] not in ROOMS:
        return f"{target[1]} is no room of n2n"
    if composes(item.source):
        return "nobody imports n2n.cli" if target[1] == "cli" else ""
    if source[1] not in ROOMS:
        return f"{source[1]} is no room of n2n"
    backwards = ROOMS.index(target[1]) > ROOMS.index(source[1])
    return f"the room {source[1]} may only import the rooms to its left" if backwards else ""


def cycle(root: Path) -> list[str]:
    """The modules of one import-time cycle, or nothing."""
    known = modules(root)
    graph: dict[str, set[str]] = {name: set() for name in known}
    for item in imports(root):
        if item.eager and item.target in known and item.target != item.source:
            graph[item.source].add(item.target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def heavy_at_top(root: Path) -> list[str]:
    return [
        f"{item}: only {HEAVY[name]} may do so at its top level; import it inside the function that needs it"
        for item in imports(root)
        if item.eager and (name := item.target.partition(".")[0]) in HEAVY and item.source != HEAVY[name]
    ]


def test_imports_run_one_way() -> None:
    assert len(imports(ROOT)) > 20  # the reading itself works
    assert wrong_arrows(ROOT) == []


def test_there_is_no_import_cycle() -> None:
    assert cycle(ROOT) == []


def test_heavy_imports_stay_where_they_are_needed() -> None:
    assert heavy_at_top(ROOT) == []


def test_importing_the_packages_loads_nothing_heavy() -> None:
    code = f"import sys, n2n, envs, search_spaces, n2n.cli.main; print(sorted(set(sys.modules) & {set(HEAVY)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def plant(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("search_spaces/a.py", "import envs"),
        ("search_spaces/a.py", "from n2n.reward import compression"),
        ("envs/a.py", "from n2n.evaluate import base"),
        ("n2n/data/a.py", "from n2n.distill.fit import fit"),
        ("n2n/agents/a.py", "def f():\n    from n2n.search import store"),
        ("n2n/search/a.py", "from ..report import plots"),
        ("n2n/search/a.py", "from n2n import load_student"),
        ("n2n/main_job.py", "from n2n.cli import main"),
        ("n2n/sweep/a.py", "from n2n.cli import main"),
        ("n2n/search/a.py", "from n2n.sweep import trials"),
        ("n2n/data/a.py", "from n2n.shed import spade"),
        ("n2n/shed.py", "from n2n.data import digits"),
        ("envs/a.py", "from tests import helpers"),
    ],
)
def test_a_backward_arrow_is_found(tmp_path: Path, file: str, line: str) -> None:
    plant(tmp_path, {file: line})
    assert len(wrong_arrows(tmp_path)) == 1


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("envs/a.py", "from search_spaces.base import Draft"),
        ("n2n/search/a.py", "from n2n.networks.count import macs\nfrom ..data import load\nfrom . import store"),
        ("n2n/reward.py", "from n2n.evaluate.base import Status"),
        ("n2n/__init__.py", "from n2n.main_job import search\nfrom n2n.policies.files import load_policy"),
        ("n2n/main_job.py", "from n2n.report import tables"),
        ("n2n/sweep/a.py", "from n2n.main_job import search"),
        (
            "n2n/cli/a.py",
            "import n2n\nfrom n2n.sweep import run\nfrom n2n import search\nfrom n2n.main_job import search",
        ),
    ],
)
def test_a_forward_arrow_is_left_alone(tmp_path: Path, file: str, line: str) -> None:
    plant(tmp_path, {file: line, "n2n/search/store.py": "", "n2n/search/__init__.py": ""})
    assert imports(tmp_path)
    assert wrong_arrows(tmp_path) == []


def test_a_cycle_is_found_and_a_deferred_import_is_none(tmp_path: Path) -> None:
    files = {"n2n/data/a.py": "from n2n.data import b", "n2n/data/b.py": "from n2n.data.a import x"}
    plant(tmp_path, files)
    assert {"n2n.data.a", "n2n.data.b"} <= set(cycle(tmp_path))
    plant(tmp_path, {"n2n/data/b.py": "def f():\n    from n2n.data.a import x"})
    assert cycle(tmp_path) == []


@pytest.mark.parametrize(
    "line", ["import ray", "from matplotlib import pyplot", "try:\n    import onnx\nfinally:\n    pass"]
)
def test_a_heavy_import_at_the_top_is_found(tmp_path: Path, line: str) -> None:
    plant(tmp_path, {"n2n/search/a.py": line})
    assert len(heavy_at_top(tmp_path)) == 1


def test_a_heavy_import_inside_a_function_or_for_types_only_is_left_alone(tmp_path: Path) -> None:
    text = "if TYPE_CHECKING:\n    import ray\ndef f():\n    import matplotlib"
    plant(tmp_path, {"n2n/search/a.py": text, "n2n/agents/sb3_ppo.py": "import stable_baselines3"})
    assert heavy_at_top(tmp_path) == []
