from __future__ import annotations

import json
import logging

import pytest
import structlog

from gateway.logs import PERSONAL_FIELDS, configure_logs


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> object:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    line: dict[str, str] = json.loads(capsys.readouterr().err.splitlines()[-1])
    return line


@pytest.mark.parametrize("field", sorted(PERSONAL_FIELDS))
def test_a_personal_field_never_reaches_a_log(
    field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs()
    structlog.get_logger("t").info("something", **{field: "Houda"})
    assert last_line(capsys)[field] == "[masked]"


@pytest.mark.parametrize(
    "text",
    [
        "Key (cnss_number)=(123456782) already exists",
        "cin AB123456.",
        "call 0612345678",
        "+212612345678",
    ],
)
def test_a_personal_number_is_masked_wherever_it_stands(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs()
    logging.getLogger("library").error(text)
    assert not any(c.isdigit() for c in last_line(capsys)["event"])


def test_a_traceback_is_masked_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs()
    try:
        raise ValueError("no person 123456782")
    except ValueError:
        structlog.get_logger("t").exception("failed")
    line = last_line(capsys)
    assert "123456782" not in json.dumps(line)
    assert "ValueError" in line["exception"]


def test_a_reference_is_no_personal_number(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs()
    structlog.get_logger("t").info("booked", reference="148275036141", amount="163.52")
    line = last_line(capsys)
    assert (line["reference"], line["amount"]) == ("148275036141", "163.52")
