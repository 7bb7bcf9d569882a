"""Check data files or a dataset version against a contract, and report every rule: as text, JSON or JUnit XML."""

from __future__ import annotations

import json
import tempfile
import xml.etree.ElementTree as ET  # writes only
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.data.batch import LandingFileError
from pipelines.data.reading import SUFFIXES, read_batch
from pipelines.declarations.contract import Contract
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.plurals import counted

if TYPE_CHECKING:
    from pyiceberg.schema import Schema

    from pipelines.data.validate import RuleResult


@dataclass(frozen=True)
class FileReport:
    """Result of a contract's rules on one file or version.

    Attributes:
        name: name of the file or the version.
        rows: number of rows; None if the file cannot be read.
        results: one for each rule; empty if the file cannot be read.
        rejected: why the whole file cannot be read as the dataset; "" if it can.
    """

    name: str
    rows: int | None
    results: tuple[RuleResult, ...]
    rejected: str = ""

    @property
    def broken(self) -> tuple[RuleResult, ...]:
        """The rules that the data breaks."""
        return tuple(result for result in self.results if result.failing)

    @property
    def keeps(self) -> bool:
        """True if the data keeps every rule."""
        return not self.rejected and not self.broken


def data_files(paths: Sequence[Path]) -> list[Path]:
    """Return the data files among paths, and in the folders among them, sorted by folder.

    Raises:
        MlopsError: a path does not exist, or a folder has no data file.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(each for each in path.rglob("*") if each.is_file() and each.suffix.lower() in SUFFIXES)
            if not inside:
                raise MlopsError(f"{path} has no data files: expected names that end in {', '.join(SUFFIXES)}")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise MlopsError(f"{path} does not exist", fix="check the path")
    return found


def check_data_file(contract: Contract, path: Path, name: str = "") -> FileReport:
    """Check one file against every rule of a contract.

    Args:
        contract: the contract.
        path: the file.
        name: its name in the report; the path by default.

    Raises:
        MlopsError: the contract has a pattern that is not valid, or the disk is full.
    """
    from pipelines.data.validate import examine

    shown = name or str(path)
    with tempfile.TemporaryDirectory(prefix="contract-") as folder:
        try:
            batch = read_batch(path, contract, Path(folder), name=shown)
            return FileReport(shown, batch.rows, tuple(examine(batch, contract, Path(folder))))
        except LandingFileError as error:
            return FileReport(shown, None, (), f"expected {error.expected}, found {error.found}")


def stored_type_problems(contract: Contract, schema: Schema) -> list[RuleResult]:
    """Compare the physical types of a table with those of its contract; one broken rule per column that differs."""
    from pipelines.data.columns import iceberg_type
    from pipelines.data.validate import RuleResult

    stored = {field.name: str(field.field_type) for field in schema.fields}
    return [
        RuleResult(name, "physicalType", str(iceberg_type(column)), 1, stored.get(name, "no such column"))
        for name, column in contract.columns.items()
        if stored.get(name) != str(iceberg_type(column))
    ]


def report_lines(contract: Contract, reports: Sequence[FileReport]) -> list[str]:
    """Return the lines that show reports to people."""
    lines = []
    for report in reports:
        total = len(report.results)
        if report.rejected:
            lines.append(f"{report.name}: rejected: {report.rejected}")
        elif report.keeps:
            lines.append(f"{report.name}: every rule holds ({counted(report.rows, 'row')}, {counted(total, 'rule')})")
        else:
            lines.append(
                f"{report.name}: {counted(report.rows, 'row')}, {len(report.broken)} of {counted(total, 'rule')} broken"
            )
        for result in report.broken:
            lines.append(f"  {result.column or 'the row'}: {result.rule}: {_described(result)}")
            if result.keys:
                lines.append(f"      {', '.join(contract.primary_key)}: {'; '.join(result.keys)}")
            elif result.rows:
                lines.append(f"      rows {', '.join(map(str, result.rows))}")
    broken = sum(not report.keeps for report in reports)
    lines.append(
        f"{len(reports) - broken} of {len(reports)} keep version {contract.version} of the contract {contract.name}"
    )
    return lines


def _described(result: RuleResult) -> str:
    found = result.found or ("another value in 1 row" if result.failing == 1 else f"others in {result.failing} rows")
    return f"expected {result.expected}, found {found}"


def report_json(contract: Contract, reports: Sequence[FileReport]) -> str:
    """Return reports as JSON."""
    value: dict[str, Any] = {
        "contract": contract.name,
        "version": contract.version,
        "keeps": all(report.keeps for report in reports),
        "files": [{**asdict(report), "keeps": report.keeps} for report in reports],
    }
    return json.dumps(value, indent=2, ensure_ascii=False)


def report_junit(contract: Contract, reports: Sequence[FileReport]) -> str:
    """Return reports as JUnit XML: a test suite per file, a test case per rule."""
    suites = ET.Element("testsuites", name=f"{contract.name} {contract.version}")
    for report in reports:
        suite = ET.SubElement(
            suites,
            "testsuite",
            name=_xml(report.name),
            tests=str(len(report.results) or 1),
            failures=str(len(report.broken) + bool(report.rejected)),
        )
        if report.rejected:
            case = ET.SubElement(suite, "testcase", classname=_xml(report.name), name="file")
            ET.SubElement(case, "failure", message=_xml(report.rejected))
        for result in report.results:
            name = f"{result.column or 'the row'}: {result.rule}"
            case = ET.SubElement(suite, "testcase", classname=_xml(report.name), name=_xml(name))
            if result.failing:
                failure = ET.SubElement(case, "failure", message=_xml(_described(result)))
                failure.text = _xml("; ".join(result.keys) or f"rows {', '.join(map(str, result.rows))}")
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=True)


def _xml(text: str) -> str:
    """Replace the characters that XML 1.0 cannot hold."""
    return "".join(letter if letter in "\t\n" or letter.isprintable() else "\ufffd" for letter in text)
