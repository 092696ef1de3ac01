"""How the training recipes finish the cards of their models, and publish the one that they are about."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any


_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def repository_of(args: Any) -> str:
    """The repository that `--push_to_hub` is about, named as by the Trainer."""
    return args.hub_model_id or Path(args.output_dir).absolute().name


def open_hub(args: Any) -> None:
    """With `--push_to_hub`, makes the repository: who cannot write to it hears so before anything is trained."""
    from accelerate import PartialState

    from hf_latentrec.hub.publishing import open_repository

    if args.push_to_hub and PartialState().is_main_process:
        open_repository(repository_of(args), private=args.hub_private_repo, token=args.hub_token)


def describe_source(data: Any, data_args: Any) -> dict[str, Any]:
    """What a card says of the data: fields of `DataFacts`."""
    folder = "synthetic data" if data_args.data_dir is None else Path(data_args.data_dir).absolute().name
    return {
        "name": data_args.data_name or folder,
        "num_users": data.num_users,
        "num_items": data.num_items,
        "num_interactions": data.num_interactions,
        "split": data_args.split.replace("_", " "),
        "license": data_args.data_license,
    }


def finish_cards(
    folder: Path,
    main: str,
    results: Mapping[str, Mapping[str, dict]],
    labels: Mapping[str, str],
    data: Mapping[str, Any],
    test: Mapping[str, Any],
    started_from: str | None = None,
) -> None:
    """
    Puts data and test results into the cards that training wrote, and into that of the main stage if a model is there.

    Args:
        folder (`Path`): of the whole run.
        main (`str`): the stage that is published.
        results (`Mapping`): by stage and way of testing, metrics.
        labels (`Mapping[str, str]`): what tables call the stages.
        data (`Mapping`): as [`describe_source`] says.
        test (`Mapping`): how stages are tested in this run; a stage of an earlier run says its own.
        started_from (`str`, *optional*): the pretrained model; named where it is one of the Hub.
    """
    from accelerate import PartialState
    from training_stages import conditions_of

    from hf_latentrec.hub.card_facts import FACTS_FILE, load_facts
    from hf_latentrec.hub.model_card import was_edited, write_card

    if not PartialState().is_main_process:
        return
    from_hub = started_from and _HUB_NAME.fullmatch(started_from) and not Path(started_from).exists()
    for name, metrics in results.items():
        stage = folder / name
        trained = (stage / FACTS_FILE).is_file()
        if not trained and (name != main or not (stage / "config.json").is_file()):  # nothing that could be published
            continue
        facts = replace(
            load_facts(stage),
            title=f"{labels[name]} on {data['name']}",
            results={setting: dict(row) for setting, row in metrics.items()},
            test=conditions_of(stage, test),
            base_model=started_from if from_hub else None,
        ).with_data(**data)
        if was_edited(stage):
            facts.save(stage)
        else:
            write_card(stage, facts)


def publish_outcome(args: Any, model_folder: Path) -> None:
    """With `--push_to_hub`, publishes a tested model; the process group is closed before, so that nobody waits."""
    from accelerate import PartialState

    from hf_latentrec.hub import publish

    if args.push_to_hub and PartialState().is_main_process:
        url = publish(
            model_folder,
            repository_of(args),
            private=args.hub_private_repo,
            token=args.hub_token,
            revision=args.hub_revision,
        )
        print(f"\nPublished: {url}", flush=True)


__all__ = ["describe_source", "finish_cards", "open_hub", "publish_outcome"]
