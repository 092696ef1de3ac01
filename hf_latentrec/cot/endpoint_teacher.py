"""A teacher behind any OpenAI-compatible endpoint: asked concurrently, with retries, and never twice."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from huggingface_hub import AsyncInferenceClient
from huggingface_hub.errors import HfHubHTTPError, HTTPError

from .jsonl import RowWriter, read_rows, repair_last_line, torn_row
from .teacher_prompt import read_answer


if TYPE_CHECKING:
    from os import PathLike


logger = logging.getLogger(__name__)

MAX_KEPT_REJECTED = 2000  # letters of a rejected answer that are kept
MAX_WAIT = 60.0  # seconds between two tries
ROW_START = b'{"user_id"'  # of every row that is written here


class Question(NamedTuple):
    """What is asked for one example: `user_id`, `target`, and the `messages` of the chat."""

    user_id: str
    target: str
    messages: list[dict[str, str]]


@dataclass
class Outcome:
    """
    How a run ended.

    Args:
        answered (`int`): answers written in this run.
        rejected (`Counter`): answers of no use, by reason.
        failed (`int`): questions without an answer after all tries; the next run asks them again.
        asked_all (`bool`): False where the run stopped early, since the endpoint answered nothing any more.
        last_error (`str`, *optional*): of the last question that failed.
    """

    answered: int = 0
    rejected: Counter = field(default_factory=Counter)
    failed: int = 0
    asked_all: bool = True
    last_error: str | None = None

    @property
    def complete(self) -> bool:
        return self.asked_all and self.failed == 0


@dataclass
class EndpointTeacher:
    """
    Asks an endpoint for reasoning, and appends every answer to a file as soon as it is there.

    Args:
        model (`str`): name of the model at the endpoint.
        base_url (`str`, *optional*): address of the endpoint (`http://localhost:8000/v1`); Hugging Face's inference
            providers if not given.
        api_key (`str`, *optional*): key or token.
        concurrency (`int`, *optional*, defaults to 8): questions under way at a time.
        max_tokens (`int`, *optional*, defaults to 768): where an endless answer is cut.
        temperature (`float`, *optional*): of sampling; the endpoint's own if not given.
        timeout (`float`, *optional*, defaults to 120.0): seconds for one answer.
        max_tries (`int`, *optional*, defaults to 5): tries per question, for failures that may pass: no connection,
            a timeout, an answer that is not in the chat format, HTTP 408, 409, 429 and 5xx.
        first_wait (`float`, *optional*, defaults to 1.0): seconds before the second try, doubled with every further
            one up to 60, and up to a half more by chance.
        max_failures (`int`, *optional*, defaults to 10): failed questions in a row after which the run stops.
    """

    model: str
    base_url: str | None = None
    api_key: str | None = None
    concurrency: int = 8
    max_tokens: int = 768
    temperature: float | None = None
    timeout: float = 120.0
    max_tries: int = 5
    first_wait: float = 1.0
    max_failures: int = 10

    def __post_init__(self):
        for name in ("concurrency", "max_tokens", "timeout", "max_tries", "max_failures"):
            if getattr(self, name) <= 0:
                raise ValueError(f"EndpointTeacher: {name} is {getattr(self, name)}; it must be positive")

    @property
    def name(self) -> str:
        """What the rows say of who wrote them."""
        return f"endpoint:{self.model}"

    def ask_all(
        self,
        questions: Iterable[Question],
        output: str | PathLike,
        rejected: str | PathLike,
        on_done: Callable[[], Any] = lambda: None,
    ) -> Outcome:
        """
        Asks every question, and writes answers and rejected answers row by row.

        Args:
            questions (iterable of `Question`): those not asked yet, see [`open_questions`].
            output (`str` or `Path`): JSON Lines `user_id, target, cot, teacher`; appended to.
            rejected (`str` or `Path`): JSON Lines `user_id, target, reason, text, teacher`; appended to.
            on_done (`Callable`, *optional*): called after every question.
        """
        with RowWriter(output) as answers, RowWriter(rejected) as refused:
            return asyncio.run(self._run(iter(questions), answers, refused, on_done))

    async def _run(
        self, questions: Iterator[Question], answers: RowWriter, refused: RowWriter, on_done: Callable[[], Any]
    ) -> Outcome:
        outcome = Outcome()
        failed_in_a_row = 0

        async def work(client: AsyncInferenceClient) -> None:
            nonlocal failed_in_a_row
            # All workers draw from one iterator, so each question has one of them.
            while failed_in_a_row < self.max_failures and (question := next(questions, None)) is not None:
                try:
                    content, finish_reason = await self._ask(client, question)
                except TeacherError as error:
                    failed_in_a_row += 1
                    outcome.failed += 1
                    outcome.last_error = str(error)
                else:
                    failed_in_a_row = 0
                    self._record(question, content, finish_reason, answers, refused, outcome)
                on_done()

        # Without a key the client would send the user's Hugging Face token, which another endpoint must not see.
        api_key = self.api_key or (None if self.base_url is None else "unused")
        async with AsyncInferenceClient(base_url=self.base_url, api_key=api_key, timeout=self.timeout) as client:
            await asyncio.gather(*(work(client) for _ in range(self.concurrency)))
        outcome.asked_all = next(questions, None) is None
        return outcome

    def _record(
        self,
        question: Question,
        content: str | None,
        finish_reason: str | None,
        answers: RowWriter,
        refused: RowWriter,
        outcome: Outcome,
    ) -> None:
        text, reason = read_answer(content, finish_reason)
        row = {"user_id": question.user_id, "target": question.target}
        if reason is None:
            answers.write(row | {"cot": text, "teacher": self.name})
            outcome.answered += 1
        else:
            refused.write(row | {"reason": reason, "text": text[:MAX_KEPT_REJECTED], "teacher": self.name})
            outcome.rejected[reason] += 1

    async def _ask(self, client: AsyncInferenceClient, question: Question) -> tuple[str | None, str | None]:
        """Text and finish reason of one answer, after as many tries as it takes."""
        for attempt in range(1, self.max_tries + 1):
            try:
                answer = await client.chat_completion(
                    question.messages, model=self.model, max_tokens=self.max_tokens, temperature=self.temperature
                )
                choice = answer.choices[0]
                content = choice.message.content
                if content is not None and not isinstance(content, str):
                    raise TypeError(f"the answer's content is {type(content).__name__}")
                return content, choice.finish_reason
            # What a broken answer raises inside the client is of many kinds.
            except (HTTPError, OSError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
                if not _may_pass(error) or attempt == self.max_tries:
                    raise TeacherError(f"user {question.user_id!r}: {type(error).__name__}: {error}") from error
                wait = min(self.first_wait * 2 ** (attempt - 1), MAX_WAIT) * (1 + random.random() / 2)
                logger.debug("try %d failed (%s), next one in %.1f s", attempt, error, wait)
                await asyncio.sleep(wait)
        raise AssertionError("unreachable: the last try returns or raises")


class TeacherError(RuntimeError):
    """A question that got no answer."""


def open_questions(
    examples: Sequence[tuple[str, str]],
    output: str | PathLike,
    rejected: str | PathLike,
    teacher: str,
    *,
    repair: bool = True,
) -> list[int]:
    """
    Which examples are still to be asked: those with a row in neither file. A last row that a kill has torn counts for
    nothing.

    Args:
        examples (`list[tuple[str, str]]`): user and target of each.
        output (`str` or `Path`): answers so far.
        rejected (`str` or `Path`): rejected answers so far; remove the file to have those asked again.
        teacher (`str`): [`EndpointTeacher.name`] of this run.
        repair (`bool`, *optional*, defaults to `True`): make the files ready to be appended to, by removing torn
            rows; `False` leaves them as they are.

    Returns:
        `list[int]`: rows of `examples`.

    Raises:
        ValueError: a file holds rows of another teacher, or is no JSON Lines.
    """
    done: set[tuple[Any, Any]] = set()
    paths = [path for path in (Path(output), Path(rejected)) if path.exists()]
    for path in paths:
        number = 0
        for number, row in read_rows(path, pass_over_torn=True):
            check_teacher(row, teacher, f"{path}: line {number}")
            done.add((row.get("user_id"), row.get("target")))
        # With no row before it, what looks torn may be someone's notes without a last line break.
        torn = torn_row(path)
        if not number and torn[: len(ROW_START)] != ROW_START[: len(torn)]:
            raise ValueError(
                f"{path}: holds no row but {torn[:40]!r}, so it is no file of a teacher; pass another --output, or "
                "move the file away"
            )
    if repair:  # not before all files were found to be ours
        for path in paths:
            repair_last_line(path)
    return [index for index, key in enumerate(examples) if key not in done]


def check_teacher(row: dict[str, Any], teacher: str, where: str) -> None:
    """Refuses to add to, or to replace, what another teacher wrote."""
    if row.get("teacher") != teacher:
        raise ValueError(
            f"{where}: was written by teacher {row.get('teacher')!r}, not by {teacher!r}; pass another --output, or "
            "move the file away"
        )


def _may_pass(error: Exception) -> bool:
    """Whether another try may go better."""
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        status = error.response.status_code
        return status in (408, 409, 429) or status >= 500
    return True


__all__ = ["EndpointTeacher", "Outcome", "Question", "TeacherError", "check_teacher", "open_questions"]
