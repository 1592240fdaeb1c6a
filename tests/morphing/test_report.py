import json

import pytest

from weightgen.architecture import Architecture
from weightgen.errors import OutputError
from weightgen.morphing.report import report
from weightgen.tasks import get_task


def test_a_report_has_a_row_for_every_method_and_size_and_goes_on_where_it_was(digits, tmp_path):
    task, folder = get_task("digits"), tmp_path / "report"
    first = report(digits, task, folder, names=["select", "l1"], widths=(0.5, 1.0))
    assert {(row["method"], row["width"]) for row in first["rows"]} == {("select", 0.5), ("l1", 0.5)}
    for row in first["rows"]:
        assert row["parameters"] == Architecture.parse(row["architecture"]).parameters < digits.parameters
        assert 0 < row["accuracy"] < first["before"]["metrics"]["accuracy"] and row["macs"] < first["before"]["macs"]
    # A row that is there is not made again.
    first["rows"][0]["accuracy"] = 0.123
    (folder / "report.json").write_text(json.dumps(first))
    second = report(digits, task, folder, names=["select", "l1"], widths=(0.5, 0.75))
    assert len(second["rows"]) == 4 and second["rows"][0]["accuracy"] == 0.123
    assert json.loads((folder / "report.json").read_text()) == second
    assert "| select | 0.5 | " in (folder / "report.md").read_text()
    assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_of_another_network_is_not_written_over(digits, make, tmp_path):
    report(digits, get_task("digits"), tmp_path, names=["slice"], widths=(0.5,))
    with pytest.raises(OutputError, match="report of another network"):
        report(make("weightgen/cnn?channels=4,6"), get_task("digits"), tmp_path, names=["slice"], widths=(0.5,))
