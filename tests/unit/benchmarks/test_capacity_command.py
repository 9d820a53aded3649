"""`python -m benchmarks.capacity`: what it prints for a load, and the one line for one that cannot be."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.capacity import COSTS, main
from benchmarks.capacity_costs import costs_of
from benchmarks.capacity_report import bytes_in_words
from tests.support.paths import ROOT


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command with some options; returns what it printed, and raises SystemExit where it does."""

    def command(*options: str) -> str:
        monkeypatch.setattr(sys, "argv", ["capacity", *options])
        main()
        return capsys.readouterr().out

    return command


def test_the_tables_have_processes_servers_machines_and_what_to_add_first(run: Any) -> None:
    printed = run("--per-day", "1000000", "--peak", "200", "--channels", "email=0.5,webhook=0.5")
    for words in ("worker fresh", "Postgres: disk", "PgBouncer", "of 8 cores", "what to add first", "One machine of 2"):
        assert words in printed
    assert "email 50%, webhook 50%" in printed


def test_json_is_one_line_with_all_of_it_and_no_infinity(run: Any) -> None:
    printed = run("--json", "--peak", "200", "--per-day", str(200 * 86_400))
    assert printed.count("\n") == 1
    needs = json.loads(printed, parse_constant=pytest.fail)
    assert {part["name"] for part in needs["parts"]} == {"api", "fresh", "retry", "clock", "beat", "exporter"}
    assert needs["ask"]["peak"] == 200
    assert needs["drain_minutes"] is None  # a peak that is the average leaves nothing to work a backlog off with
    assert needs["one_machine_of_2_cores"] > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--peak", "many"], "--peak"),
        (["--peak", "nan"], "--peak is not a number"),
        (["--peak", "0"], "--peak is 0"),
        (["--per-day", "1e9"], "--per-day comes to"),
        (["--channels", "email"], "email=0.5"),
        (["--channels", "email=0.5,email=0.5"], "twice"),
        (["--channels", "email=0.5"], "come to 0.5"),
        (["--channels", "fax=1"], "fax"),
        (["--batch", "0"], "--batch"),
        (["--costs", "/nowhere/costs.json"], "--costs cannot be read"),
        (["--costs", str(ROOT / "benchmarks/last_release.json")], "--costs is not a file"),
        (["--costs", str(ROOT / "README.md")], "--costs is not a file"),
        (["--only", "loads"], "--only is for --measure"),
        (["--measure", "--only", "everything"], "--only names 'everything'"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_bad_input_is_one_line(run: Any, capsys: pytest.CaptureFixture[str], options: list[str], words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*options)
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert words in said.err


def test_a_channel_that_was_not_measured_is_refused(
    run: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    document = json.loads(COSTS.read_text())
    del document["stages"]["email"]
    costs = tmp_path / "costs.json"
    costs.write_text(json.dumps(document))
    with pytest.raises(SystemExit):
        run("--costs", str(costs), "--channels", "email=1")
    assert "email, which was not measured" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"machine": {"cores": 999}, "stages": {}}', "another machine"),
        ("{}", "is not a file"),
        ("nothing", "is not a file"),
    ],
)
def test_a_stage_is_not_measured_beside_others_of_another_machine(
    run: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, words: str
) -> None:
    costs = tmp_path / "costs.json"
    costs.write_text(text)
    with pytest.raises(SystemExit):
        run("--measure", "--only", "hints", "--costs", str(costs))
    assert words in capsys.readouterr().err
    assert costs.read_text() == text


def test_the_committed_costs_say_where_they_come_from_and_are_whole() -> None:
    document = json.loads(COSTS.read_text())
    machine = document["machine"]
    assert machine["cores"] >= 1
    assert {"python", "notifier", "packages", "system"} <= machine.keys()
    costs = costs_of(document)
    assert costs.channel.keys() == {"webhook", "email", "sms", "push", "chat"}
    for name in ("api", "fresh", "postgres"):
        assert costs.single[name] > costs.batch[name] > 0, name
    assert costs.rows.at(4096) > costs.rows.at(0) > 0


@pytest.mark.parametrize("stage", json.loads(COSTS.read_text())["stages"])
def test_no_notification_was_lost_while_they_were_measured(stage: str) -> None:
    found = json.dumps(json.loads(COSTS.read_text())["stages"][stage])
    assert set(re.findall(r'"lost": (\d+)', found)) <= {"0"}


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (25_000, "25 kB"), (2.6e9, "2.6 GB"), (7.5e14, "750.0 TB")],
)
def test_sizes_in_words(size: float, words: str) -> None:
    assert bytes_in_words(size) == words
