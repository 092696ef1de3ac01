"""
Write the teacher's reasoning for every training example: what LASAR's thoughts are aligned with.

    python recipes/build_cot.py --data_dir DATA --output cot.jsonl                       # from templates, no model
    python recipes/build_cot.py --data_dir DATA --output cot.jsonl --teacher endpoint --model Qwen/Qwen3-8B \\
        --base_url http://localhost:8000/v1 --concurrency 16 [--dry_run]
    python recipes/build_cot.py --data_dir DATA --output cot.jsonl --teacher file --text_file mine.jsonl

Any OpenAI-compatible endpoint will do; a local one is (transformers[serving]):

    transformers serve Qwen/Qwen3-8B --continuous-batching --reasoning off --port 8000

Answers are appended to --output one by one. A run that was killed, or whose endpoint failed, goes on where it stopped
when the same command is given again. Answers of no use (empty, endless, garbage) go to OUTPUT.rejected.jsonl with the
reason and are not asked again; remove that file to ask them again. --dry_run asks nobody: it prints how many requests
there would be, about how many tokens, and the first prompts.

A row is {"user_id": ..., "target": ..., "cot": ..., "teacher": ...}. A file of your own (--teacher file) needs user_id
and cot; without a target a text serves all examples of its user that have none of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from training_setup import DataArguments, load_splits
from trl import TrlParser


if TYPE_CHECKING:
    from datasets import Dataset

    from hf_latentrec.cot.endpoint_teacher import Question


TEACHERS = ("template", "endpoint", "file")
TOKENIZATIONS = ("semantic_id", "title")
LETTERS_PER_TOKEN = 4  # a rule of thumb, for estimates alone
NUM_SHOWN = 2  # prompts in a dry run


@dataclass
class TeacherArguments:
    """Who writes, and where to."""

    output: str = field(metadata={"help": "JSON Lines that are written."})
    teacher: str = field(
        default="template",
        metadata={
            "help": "'template' (from item metadata), 'endpoint', or 'file'.",
            "choices": TEACHERS,
        },
    )
    item_tokenization: str = field(
        default="semantic_id",
        metadata={"help": "What answers are made of, as in training.", "choices": TOKENIZATIONS},
    )
    text_file: str | None = field(default=None, metadata={"help": "Teacher 'file': your JSON Lines."})
    model: str | None = field(default=None, metadata={"help": "Teacher 'endpoint': name of the model there."})
    base_url: str | None = field(
        default=None, metadata={"help": "Address of the endpoint; Hugging Face's inference providers if not given."}
    )
    api_key_env: str | None = field(
        default=None, metadata={"help": "Environment variable with the endpoint's key or token, if it needs one."}
    )
    concurrency: int = field(default=8, metadata={"help": "Requests under way at a time."})
    max_tokens: int = field(default=768, metadata={"help": "Longest answer; a longer one is cut and rejected."})
    temperature: float | None = field(default=None, metadata={"help": "The endpoint's own if not given."})
    timeout: float = field(default=120.0, metadata={"help": "Seconds for one answer."})
    max_tries: int = field(default=5, metadata={"help": "Tries per request, with doubled waits between them."})
    first_wait: float = field(default=1.0, metadata={"help": "Seconds before the second try."})
    dry_run: bool = field(default=False, metadata={"help": "Teacher 'endpoint': ask nobody, print what would be."})

    def __post_init__(self):
        # What argparse does not see in a config file is checked, too.
        for name, known in (("teacher", TEACHERS), ("item_tokenization", TOKENIZATIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {known}")
        needed = {"endpoint": "model", "file": "text_file"}.get(self.teacher)
        if needed and getattr(self, needed) is None:
            raise ValueError(f"--teacher {self.teacher} needs --{needed}")
        of_others = {"model": "endpoint", "base_url": "endpoint", "api_key_env": "endpoint", "text_file": "file"}
        for name, teacher in of_others.items():
            if getattr(self, name) is not None and self.teacher != teacher:
                raise ValueError(f"--{name} is for --teacher {teacher}, but --teacher is {self.teacher}; leave it out")
        if self.dry_run and self.teacher != "endpoint":
            raise ValueError("--dry_run is for --teacher endpoint: the others ask nobody")


def write_from_templates(train: Dataset, items: Dataset, output: Path) -> int:
    """Teacher 'template': deterministic, written at one go."""
    from hf_latentrec.cot import write_template_text
    from hf_latentrec.cot.template_teacher import TEMPLATE_TEACHER

    refuse_to_replace(output, TEMPLATE_TEACHER)
    text = write_template_text(train, items)
    write_at_once(text, output)
    print(
        f"Template teacher: {len(text):,} texts written from item metadata by fixed rules, without a language model, "
        f"to {output}"
    )
    return 0


def write_from_file(train: Dataset, source: Path, output: Path) -> int:
    """Teacher 'file': checks the user's own text, and keeps what belongs to the data."""
    from hf_latentrec.cot import match_examples, read_teacher_text

    if source.resolve() == output.resolve():
        raise ValueError(f"--text_file and --output are both {output}; pass another --output")
    refuse_to_replace(output, "file")
    text = read_teacher_text(source)
    found = match_examples(text, train)
    if not found["with_cot"]:
        raise ValueError(
            f"{source}: none of its {len(text):,} rows is for one of the {len(train):,} training examples; are "
            "user_id and target those of the data?"
        )
    known = set(train["user_id"])
    text = text.filter(lambda users: [user in known for user in users], batched=True, input_columns="user_id")
    write_at_once(text.add_column("teacher", ["file"] * len(text)), output)
    print(
        f"Teacher file {source}: {len(text):,} texts to {output}; {found['with_cot']:,} of {found['examples']:,} "
        f"training examples have one, {found['without_cot']:,} have none; {found['unknown_users']:,} row(s) of "
        f"unknown users were left out, {found['unknown_targets']:,} row(s) are for no training target"
    )
    return 0


def write_from_endpoint(train: Dataset, items: Dataset, args: TeacherArguments) -> int:
    """Teacher 'endpoint': asks what has not been asked yet."""
    from tqdm import tqdm

    from hf_latentrec.cot.endpoint_teacher import EndpointTeacher, open_questions
    from hf_latentrec.cot.item_text import ItemText

    teacher = EndpointTeacher(
        model=args.model,
        base_url=args.base_url,
        api_key=api_key(args.api_key_env),
        concurrency=args.concurrency,
        max_tokens=args.max_tokens,
        temperature=args.temperature,
        timeout=args.timeout,
        max_tries=args.max_tries,
        first_wait=args.first_wait,
    )
    output, rejected = Path(args.output), Path(f"{args.output}.rejected.jsonl")
    # Of several examples with one user and target the last counts: it has the longest history.
    row_of = {key: row for row, key in enumerate(zip(train["user_id"], train["target"], strict=True))}
    open_keys = open_questions(list(row_of), output, rejected, teacher.name, repair=not args.dry_run)
    rows = [list(row_of.values())[index] for index in open_keys]
    text = ItemText.from_items(items)
    if not text.has_titles:
        print("Note: the items have no titles, so the teacher sees nothing but their codes.")
    if args.dry_run:
        dry_run(make_questions(train, rows, text), len(rows), args)
        return 0
    with tqdm(total=len(rows), desc="asking", unit="text") as bar:
        try:
            outcome = teacher.ask_all(make_questions(train, rows, text), output, rejected, on_done=bar.update)
        except KeyboardInterrupt:
            print(f"\nInterrupted. All answers so far are in {output}; give the same command again to go on.")
            return 130
    before = len(row_of) - len(rows)
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(outcome.rejected.items()))
    print(
        f"Teacher {teacher.name}: {outcome.answered:,} texts to {output}, {before:,} examples were done before; "
        f"{outcome.rejected.total():,} answers rejected{f' ({reasons}), see {rejected}' if reasons else ''}"
    )
    if not outcome.complete:
        left = len(rows) - outcome.answered - outcome.rejected.total()
        why = "" if outcome.asked_all else f"stopped after {teacher.max_failures} failures in a row; "
        print(
            f"NOT complete: {why}{left:,} examples have no answer yet. All answers so far are in {output}; give the "
            f"same command again to go on. Last error: {outcome.last_error}",
            file=sys.stderr,
        )
        return 1
    return 0


def make_questions(train: Dataset, rows: Sequence[int], text) -> Iterator[Question]:
    """The chats for some of the training examples."""
    from hf_latentrec.cot.endpoint_teacher import Question
    from hf_latentrec.cot.teacher_prompt import build_messages

    for example in train.select(rows):
        history = [text.names[item_id] for item_id in example["history"]]
        target = text.names[example["target"]]
        yield Question(example["user_id"], example["target"], build_messages(history, target))


def dry_run(questions: Iterator[Question], num_requests: int, args: TeacherArguments) -> None:
    """Says what a run would ask, and asks nobody."""
    letters = 0
    for number, question in enumerate(questions):
        letters += sum(len(message["content"]) for message in question.messages)
        if number < NUM_SHOWN:
            print(f"--- prompt {number + 1}: user {question.user_id}, target {question.target}")
            print("\n".join(f"[{message['role']}]\n{message['content']}" for message in question.messages))
    print(
        f"--- dry run: {num_requests:,} requests to {args.model}, about {letters // LETTERS_PER_TOKEN:,} tokens in "
        f"({LETTERS_PER_TOKEN} letters each), at most {num_requests * args.max_tokens:,} out; nothing was asked or "
        "written"
    )


def api_key(variable: str | None) -> str | None:
    """The key in an environment variable."""
    if variable is None:
        return None
    if not os.environ.get(variable):
        raise ValueError(f"--api_key_env: the environment variable {variable} is not set")
    return os.environ[variable]


def refuse_to_replace(output: Path, teacher: str) -> None:
    """What another teacher wrote may have been expensive."""
    from hf_latentrec.cot.endpoint_teacher import check_teacher
    from hf_latentrec.cot.jsonl import read_rows

    if output.exists():
        for number, row in read_rows(output):
            check_teacher(row, teacher, f"{output}: line {number}")


def write_at_once(text: Dataset, output: Path) -> None:
    """All rows, or nothing."""
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_name(output.name + ".unfinished")
    with unfinished.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in text.to_list())
    os.replace(unfinished, output)


def main(data_args: DataArguments, args: TeacherArguments) -> int:
    """Data, then the teacher; returns the exit status."""
    data, splits = load_splits(data_args, item_tokenization=args.item_tokenization)
    if args.teacher == "template":
        return write_from_templates(splits["train"], data.items, Path(args.output))
    if args.teacher == "file":
        return write_from_file(splits["train"], Path(args.text_file), Path(args.output))
    return write_from_endpoint(splits["train"], data.items, args)


def make_parser() -> TrlParser:
    """The command line."""
    return TrlParser(
        (DataArguments, TeacherArguments), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )


if __name__ == "__main__":
    sys.exit(main(*make_parser().parse_args_and_config()))
