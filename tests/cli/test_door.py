"""What stands between a command and the shell: a refusal is one plain line, whatever room it comes from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import Result

from n2n.cli.door import BAD_INPUT, Outcome, run
from n2n.distill.objectives import OBJECTIVES
from n2n.search.errors import SearchError
from search_spaces.base import SpaceError


def refused(error: Exception, *, as_json: bool = False) -> int:
    """The exit code of a command that raises."""

    def command() -> Outcome:
        raise error

    with pytest.raises(typer.Exit) as left:
        run(command, as_json=as_json)
    return left.value.exit_code


def test_a_fault_of_ours_that_a_space_names_is_one_line_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    message = "a student of Net does not work (conv1 gives 3). This is a fault of N2N:\n   please report it"
    assert refused(SpaceError(message)) == BAD_INPUT
    shown = capsys.readouterr()
    assert shown.err == f"error: {' '.join(message.split())}\n"
    assert shown.out == ""


def test_code_to_paste_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    code = "    class A:\n        x = 1"
    assert refused(SearchError(f"wrap\nit:\n\n{code}")) == BAD_INPUT
    assert capsys.readouterr().err.rstrip() == f"error: wrap it:\n\n{code}"
    refused(SearchError(f"wrap it:\n\n{code}"), as_json=True)
    assert code in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.parametrize("command", ["search", "train-teacher"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_network_that_returns_a_dict_is_refused_with_a_wrapper_that_works(
    n2n: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, wrapped: bool
) -> None:
    name = f"own_dict_{command.replace('-', '_')}_{wrapped}"
    (tmp_path / f"{name}.py").write_text(DICT + ("    return Logits(Net())\n" if wrapped else "    return Net()\n"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    network = ("--network",) if command == "search" else ()
    flags = ("--epochs", 0.1) if command == "train-teacher" else ()
    result = n2n(command, *network, f"{name}:build", *flags, "--out", tmp_path / "out")
    if wrapped and command == "search":
        assert "at chance level" in result.stderr, "not the output, but its lack of training is the reason now"
    elif wrapped:
        assert result.exit_code == 0, result.stderr
    else:
        assert result.exit_code == 2
        assert "return self.network(x)['logits']\n" in result.stderr
        assert not (tmp_path / "out").exists()


DICT = """import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(64, 10)

    def forward(self, x):
        return {"loss": None, "logits": self.fc(x.flatten(1)) * 0}

class Logits(torch.nn.Module):
    def __init__(self, network): super().__init__(); self.network = network
    def forward(self, x): return self.network(x)['logits']

def build():
"""


def test_a_bug_keeps_its_traceback() -> None:
    def command() -> Outcome:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(command, as_json=False)


def test_an_objective_on_maps_is_refused_for_a_network_without_any(
    n2n: Callable[..., Result], teacher: Path, run: Path, tmp_path: Path
) -> None:
    to = ("--teacher", teacher, "--objective", "nst", "--out", tmp_path / "out")
    for command in (("search",), ("distill", run / "students/1")):
        result = n2n(*command, *to)
        assert result.exit_code == BAD_INPUT
        assert "no feature maps" in result.stderr
        assert "use the objective 'kd'" in result.stderr
        assert not (tmp_path / "out/config.json").exists()


def test_the_help_names_every_objective(n2n: Callable[..., Result]) -> None:
    for command in ("search", "distill"):
        shown = n2n(command, "--help").stdout
        assert all(name in shown for name in OBJECTIVES)
