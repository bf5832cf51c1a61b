"""Rows with people's references that the kind `verified` starts from, in the columns of GSM8K and MBPP."""

import dataclasses

from ste_jax.data.fields import optional_name, optional_text, required_text, text_list
from ste_jax.data.rows import Row, read_table


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkedSolution:
    """A problem of GSM8K.

    Attributes:
      id: id of the problem.
      question: the problem.
      answer: the solution with calculator marks ("48/2 = <<48/2=24>>24") and, after "####", the result.
    """

    id: str
    question: str
    answer: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class TestedFunction:
    """A task of MBPP.

    Attributes:
      id: id of the task.
      text: the task.
      code: code that solves it.
      tests: statements that fail if the code is wrong.
      setup: code that runs before the tests.
    """

    # Not a test, though its name begins like one.
    __test__ = False

    id: str
    text: str
    code: str
    tests: tuple[str, ...]
    setup: str = ""


def read_solutions(path: str) -> list[WorkedSolution]:
    """Returns the rows of a file with the columns `question` and `answer`, and `id` if there is one.

    Raises:
      SteError: "data_invalid", "file_not_found" or "file_unreadable", naming the file and the row.
    """
    return [
        WorkedSolution(
            id=_id(row, "gsm8k", "id"),
            question=required_text(row.fields, "question", row.where),
            answer=required_text(row.fields, "answer", row.where),
        )
        for row in read_table(path).rows
    ]


def read_functions(path: str) -> list[TestedFunction]:
    """Returns the rows of a file with the columns `text` or `prompt`, `code`, and `test_list`.

    Optional columns are `task_id`, and with code that runs before the tests `test_setup_code` and
    `test_imports`.

    Raises:
      SteError: "data_invalid", "file_not_found" or "file_unreadable", naming the file and the row.
    """
    return [_function(row) for row in read_table(path).rows]


def _function(row: Row) -> TestedFunction:
    fields, where = row.fields, row.where
    text = optional_text(fields, "prompt", where)
    imports = text_list(fields, "test_imports", where) if fields.get("test_imports") else []
    return TestedFunction(
        id=_id(row, "mbpp", "task_id"),
        text=required_text(fields, "text", where) if text is None else text,
        code=required_text(fields, "code", where),
        tests=tuple(text_list(fields, "test_list", where)),
        setup="\n".join([*imports, optional_text(fields, "test_setup_code", where) or ""]).strip(),
    )


def _id(row: Row, name: str, column: str) -> str:
    return f"{name}-{optional_name(row.fields, column, row.where) or row.number}"
