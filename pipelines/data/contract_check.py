"""Check data files or a dataset version against a contract, and report every rule: as text, JSON or JUnit XML."""

from __future__ import annotations

import json
import tempfile
import xml.etree.ElementTree as ET  # writes only
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.data.batch import LandingFileError
from pipelines.data.reading import SUFFIXES, check_size, read_batch
from pipelines.declarations.contract import Contract
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.plurals import counted
from pipelines.declarations.printable import printable

if TYPE_CHECKING:
    from pyiceberg.schema import Schema

    from pipelines.data.sql_rules import ReadTable
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
        """The rules that bind and that the data breaks."""
        return tuple(result for result in self.results if result.failing and result.binds)

    @property
    def warnings(self) -> tuple[RuleResult, ...]:
        """The rules that the data breaks and that do not bind."""
        return tuple(result for result in self.results if result.failing and not result.binds)

    @property
    def unchecked(self) -> tuple[RuleResult, ...]:
        """The rules that were not checked."""
        return tuple(result for result in self.results if not result.is_checked)

    @property
    def keeps(self) -> bool:
        """True if the data keeps every rule that binds and could be checked."""
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


def check_data_file(contract: Contract, path: Path, name: str = "", read_table: ReadTable | None = None) -> FileReport:
    """Check one file against every rule of a contract.

    Args:
        contract: the contract.
        path: the file.
        name: its name in the report; the path by default.
        read_table: reads the tables of datasets, for rules that need them; None if they are not at hand.

    Raises:
        MlopsError: the contract has a pattern that is not valid, or the disk is full.
    """
    from pipelines.data.validate import examine

    shown = name or str(path)
    with tempfile.TemporaryDirectory(prefix="contract-") as folder:
        try:
            batch = read_batch(path, contract, Path(folder), name=shown)
            return FileReport(shown, batch.rows, tuple(examine(batch, contract, Path(folder), read_table)))
        except LandingFileError as error:
            return FileReport(shown, None, (), f"expected {error.expected}, found {error.found}")


def check_stored_files(
    contract: Contract, url: str, region: str | None = None, read_table: ReadTable | None = None
) -> Iterator[FileReport]:
    """Check each data file under an S3 prefix; see `check_data_file`. One file at a time is on this machine.

    Args:
        contract: the contract.
        url: `s3://bucket/prefix`.
        region: AWS region; the configured one by default.
        read_table: reads the tables of datasets; None if they are not at hand.

    Raises:
        MlopsError: there are no data files, or AWS denied a request.
    """
    from pipelines.data.stored_files import local_copy, stored_files

    for name, size in stored_files(url, region):
        try:
            check_size(name, size)
        except LandingFileError as error:
            yield FileReport(name, None, (), f"expected {error.expected}, found {error.found}")
            continue
        with local_copy(name, region) as path:
            yield check_data_file(contract, path, name, read_table)


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
            checked = counted(len(report.results) - len(report.unchecked), "rule")
            lines.append(
                f"{report.name}: every rule holds ({counted(report.rows or 0, 'row')}, {checked}){_also(report)}"
            )
        else:
            lines.append(
                f"{report.name}: {counted(report.rows or 0, 'row')}, {len(report.broken)} of {counted(total, 'rule')} "
                f"broken{_also(report)}"
            )
        for result in (*report.broken, *report.warnings):
            mark = "" if result.binds else "warning: "
            lines.append(f"  {mark}{result.column or 'the rows'}: {result.rule}: {_described(result)}")
            if result.keys:
                lines.append(f"      {', '.join(contract.primary_key)}: {'; '.join(result.keys)}")
            elif result.rows:
                lines.append(f"      rows {', '.join(map(str, result.rows))}")
    broken = sum(not report.keeps for report in reports)
    lines.append(
        f"{len(reports) - broken} of {len(reports)} keep version {contract.version} of the contract {contract.name}"
    )
    return [printable(line) for line in lines]


def _also(report: FileReport) -> str:
    """Name the rules that were not checked, and say why."""
    names: dict[str, list[str]] = {}
    for result in report.unchecked:
        rule = f"{result.column}: {result.rule}" if result.column else result.rule
        names.setdefault(result.unchecked_because, []).append(rule)
    return "".join(f"; not checked, because {why}: {', '.join(rules)}" for why, rules in names.items())


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
            skipped=str(len(report.unchecked)),
        )
        if report.rejected:
            case = ET.SubElement(suite, "testcase", classname=_xml(report.name), name="file")
            ET.SubElement(case, "failure", message=_xml(report.rejected))
        for result in report.results:
            name = f"{result.column or 'the row'}: {result.rule}"
            case = ET.SubElement(suite, "testcase", classname=_xml(report.name), name=_xml(name))
            if not result.is_checked:
                ET.SubElement(case, "skipped", message=result.unchecked_because)
            elif result.failing and not result.binds:
                ET.SubElement(case, "system-out").text = _xml(f"warning: {_described(result)}")
            elif result.failing:
                failure = ET.SubElement(case, "failure", message=_xml(_described(result)))
                failure.text = _xml("; ".join(result.keys) or f"rows {', '.join(map(str, result.rows))}")
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=True)


def _xml(text: str) -> str:
    """Replace the characters that XML 1.0 cannot hold."""
    return printable(text, keep="\t\n")
