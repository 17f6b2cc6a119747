"""The CSV of all predictions, opened in a spreadsheet."""

from __future__ import annotations

import csv
import unicodedata
from pathlib import Path

import pytest

from inference_evaluation.labelled_images import LabelledImage
from inference_evaluation.predictions import Prediction
from inference_evaluation.predictions_file import write_predictions

SIGNS = (
    "=+-@\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}\N{FULLWIDTH HYPHEN-MINUS}\N{FULLWIDTH COMMERCIAL AT}"
    "\N{SMALL HYPHEN-MINUS}"
)
SPACES = ("", " ", "   ", "\N{NO-BREAK SPACE}", "\N{IDEOGRAPHIC SPACE}")


def written(tmp_path: Path, text: str) -> dict[str, str]:
    prediction = Prediction(image=LabelledImage(path=Path(text), truth=text), error=text)
    write_predictions(tmp_path / "file", [prediction], [])
    with (tmp_path / "file").open(encoding="utf-8", newline="") as lines:
        (row,) = csv.DictReader(lines)
    return row


@pytest.mark.parametrize("sign", SIGNS, ids=unicodedata.name)
def test_text_that_a_spreadsheet_would_take_for_a_formula_has_an_apostrophe_before_it(
    sign: str, tmp_path: Path
) -> None:
    for space in SPACES:
        text = f"{space}{sign}1+1"
        row = written(tmp_path, text)
        assert (row["truth"], row["error"], row["file"]) == (f"'{text}", f"'{text}", f"'{text}/{text}")


@pytest.mark.parametrize("text", ["a=1", " a", "1-1", " "])
def test_text_that_is_no_formula_is_written_as_it_is(text: str, tmp_path: Path) -> None:
    assert written(tmp_path, text)["truth"] == text
