"""Generate `samples/diabetes-patients.csv`: run this module to print the file.

The 442 patients of the study (Efron, Hastie, Johnstone, Tibshirani: Least Angle Regression, 2004) from scikit-learn, in
their original units, followed by rows that break the contract.
"""

from __future__ import annotations

COLUMNS = ("patient_id", "age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6", "progression")

BAD_ROWS = (
    ("443", "", "2", "25.1", "90.0", "180.0", "110.0", "50.0", "4.0", "4.6", "90.0", "120.0"),
    ("444", "61", "1", "n/a", "101.0", "190.0", "120.0", "45.0", "4.0", "4.8", "95.0", "150.0"),
    ("445", "430", "1", "27.3", "95.0", "185.0", "115.0", "48.0", "4.0", "4.7", "92.0", "140.0"),
    ("17", "35", "2", "24.0", "88.0", "170.0", "100.0", "55.0", "3.0", "4.2", "85.0", "98.0"),
    ("446", "52", "3", "29.9", "99.0", "210.0", "130.0", "42.0", "5.0", "5.1", "101.0", "210.0"),
)
"""A missing age, text instead of a number, an impossible age, a repeated patient and an unknown code for sex."""


def sample() -> str:
    """Return the text of the file."""
    from sklearn.datasets import load_diabetes

    study = load_diabetes(scaled=False)
    lines = [",".join(COLUMNS)]
    for number, (features, progression) in enumerate(zip(study.data, study.target, strict=True), 1):
        values = dict(zip(study.feature_names, features, strict=True))
        row = [str(number), str(int(values["age"])), str(int(values["sex"]))]
        row += [repr(float(values[name])) for name in COLUMNS[3:11]]
        lines.append(",".join([*row, repr(float(progression))]))
    lines += [",".join(row) for row in BAD_ROWS]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(sample(), end="")
