from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from pipelines.declarations.names import DatasetName, Name, maintenance_name, predictions_name


@pytest.mark.parametrize("dataset", ["visits", "a" * 40, predictions_name("churn")])
def test_the_maintenance_of_a_table_is_named_after_its_dataset(dataset: str) -> None:
    assert maintenance_name(dataset) == f"maintain-{dataset}"


def test_the_maintenance_of_long_names_fits_a_cron_job_and_stays_unique() -> None:
    models = [TypeAdapter(Name).validate_python("m" * 39 + last) for last in "ab"]
    datasets = [TypeAdapter(DatasetName).validate_python(predictions_name(model)) for model in models]
    names = {maintenance_name(dataset) for dataset in datasets}
    assert len(names) == 2 and {len(name) for name in names} == {52}
