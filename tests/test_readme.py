"""The examples of the README and of its pages run, and the tables are those of the committed CSV files."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from n2n.cli.main import app
from n2n.distill.objectives import OBJECTIVES

ROOT = Path(__file__).parents[1]


PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def blocks(language: str) -> list[str]:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Of the headings of a page, as they are linked."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_somewhere() -> None:
    assert len(PAGES) > 5
    for page in PAGES:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            if not link.startswith("http"):
                path, _, anchor = link.partition("#")
                target = page.parent / path if path else page
                assert target.exists(), f"{page.name}: {link}"
                assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_the_python_examples_run_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the sizes are smaller: fewer epochs and fewer students."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("N2N_POLICIES", str(tmp_path / "policies"))
    search, describe, longer, own_objective, reuse, scores = blocks("python")
    small = "evaluations=4, steps=5, final_epochs=0.2, finalists=1"
    reuse = (
        reuse.replace("policy_mode=", f"{small}, policy_mode=")
        .replace('agent="ppo"', f'agent="ppo", {small}')
        .replace('data, max_params="20%")', "data, judged=2, seeds=1)")
    )
    search = search.replace("epochs=20", "epochs=3").replace("evaluations=30", "evaluations=6, steps=5, final_epochs=2")
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(search, "README.md", "exec"), names)
        exec(compile(describe, "README.md", "exec"), names)
        exec(compile(longer.replace("epochs=20", "epochs=1"), "docs/distilling.md", "exec"), names)
        monkeypatch.setitem(OBJECTIVES, "huber", OBJECTIVES["kd"])  # taken out again afterwards
        exec(compile(own_objective, "docs/objectives.md", "exec"), names)
        exec(compile(reuse, "docs/policies.md", "exec"), names)
        exec(compile(scores, "docs/scores.md", "exec"), names)
    lines = printed.getvalue().splitlines()
    assert re.fullmatch(r"\d+\.\d+% -> \d+\.\d+%, [\d,]+ parameters", lines[0])
    assert lines[1] == "torch.Size([1, 10])"
    assert lines[2].split()[:3] == ["layer", "kind", "what"]
    assert "removal: is the first layer" in lines[4]
    assert re.fullmatch(r"\d+ steps of \d\.\d+ s", lines[-4])
    assert (tmp_path / "runs/mine/report.md").exists()
    assert all(-1 <= float(reward) <= 1.1 for reward in lines[-3].split()), lines[-3]
    assert lines[-2].startswith("{'live_capacity': ")
    assert float(lines[-1]) == 0


def test_the_command_lines_name_real_commands_and_options() -> None:
    """Every option on the pages is one that the command knows."""
    lines = [line.split("#")[0].split() for block in blocks("sh") for line in block.splitlines() if "n2n " in line]
    assert len(lines) >= 7
    for words in lines:
        command = words[1:3] if words[1] == "policy" else words[1:2]
        helped = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"})
        assert helped.exit_code == 0, helped.output
        shown = helped.output
        unknown = [word for word in words if word.startswith("--") and not re.search(rf"{word}\b", shown)]
        assert not unknown, f"{' '.join(words)}: no option {unknown}"


def test_the_tables_are_those_of_the_csv_files() -> None:
    script = ROOT / "scripts/benchmarks/tables.py"
    checked = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
