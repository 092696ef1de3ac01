"""
Publish a trained model on the Hub, all of it in one commit: weights, tokenizer, catalog, trie, prompt, code, card.

    hf auth login
    python recipes/publish.py --model outputs/lasar/grpo --repo_id me/lasar-beauty
    python recipes/publish.py --model ... --repo_id ... --evaluation outputs/lasar/evaluation --data_license CC0

With `--evaluation`, the folder that recipes/evaluate.py wrote, the card shows its metrics, and the ranks are published
in `evaluation/`. The card is the one that training wrote, with what is told here; one that was written by hand keeps
its text. A failure leaves the repository as it was; run the same again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from training_setup import HelpFormatter
from trl import TrlParser


@dataclass
class PublishArguments:
    """What is published, where, and what its card cannot know."""

    model: str | None = field(default=None, metadata={"help": "Folder of the trained model."})
    repo_id: str | None = field(default=None, metadata={"help": "Repository of the Hub, made where there is none."})
    evaluation: str | None = field(
        default=None, metadata={"help": "Folder of an evaluation of this model, made by recipes/evaluate.py."}
    )
    title: str | None = field(default=None, metadata={"help": "Heading of the card."})
    license: str | None = field(default=None, metadata={"help": "Licence of the model, by the Hub's name of it."})
    data_name: str | None = field(default=None, metadata={"help": "Name of the data."})
    data_license: str | None = field(default=None, metadata={"help": "Licence of the data."})
    private: bool | None = field(default=None, metadata={"help": "Whether a new repository is private."})
    revision: str | None = field(default=None, metadata={"help": "Branch of the repository."})
    commit_message: str | None = field(default=None, metadata={"help": "Of the commit."})

    def __post_init__(self):
        for name in ("model", "repo_id"):
            if not getattr(self, name):
                raise ValueError(f"--{name} is missing; say what is published, and where")


def update_card(args: PublishArguments) -> None:
    """Puts what was told into the card of the folder, unless it was written by hand."""
    from hf_latentrec.hub.card_facts import load_facts
    from hf_latentrec.hub.model_card import was_edited, write_card

    told = {name: value for name in ("title", "license") if (value := getattr(args, name))}
    facts = replace(load_facts(args.model), **told).with_data(name=args.data_name, license=args.data_license)
    if not was_edited(args.model):
        write_card(args.model, facts)
    elif told or args.data_name or args.data_license:
        raise ValueError(
            f"the card in {args.model} was written by hand, so title, license, data_name and data_license do not "
            "enter it; write them there, or remove README.md"
        )


def main(args: PublishArguments) -> None:
    """Finishes the card and publishes."""
    from hf_latentrec.hub import publish
    from hf_latentrec.hub.publishing import check_complete

    check_complete(args.model)
    update_card(args)
    url = publish(
        args.model,
        args.repo_id,
        run=args.evaluation,
        private=args.private,
        revision=args.revision,
        commit_message=args.commit_message,
    )
    print(f"Published: {url}")


if __name__ == "__main__":
    main(*TrlParser(PublishArguments, description=__doc__, formatter_class=HelpFormatter).parse_args_and_config())
