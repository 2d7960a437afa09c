"""What stands between a command and the shell: a refusal is one plain line, whatever room it comes from."""

from __future__ import annotations

import json

import pytest
import typer

from n2n.cli.door import BAD_INPUT, Outcome, run
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


def test_a_bug_keeps_its_traceback() -> None:
    def command() -> Outcome:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(command, as_json=False)
