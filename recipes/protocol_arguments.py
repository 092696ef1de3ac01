"""How the recipes are told what to rank in tests, and what to show of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from hf_latentrec.evaluation import PROTOCOLS


@dataclass
class ProtocolArguments:
    """Which protocols of evaluation are run."""

    eval_protocols: list[str] = field(
        default_factory=lambda: list(PROTOCOLS),
        metadata={
            "help": "Rank the whole catalog ('nothing filtered'), or without the user's history ('seen items "
            "excluded'); one of them takes half the time of both.",
            "choices": list(PROTOCOLS),
        },
    )

    def __post_init__(self):
        if unknown := [name for name in self.eval_protocols if name not in PROTOCOLS]:  # argparse sees no config file
            raise ValueError(f"eval_protocols holds {unknown[0]!r}; choose from {tuple(PROTOCOLS)}")
        if not self.eval_protocols:
            raise ValueError(f"eval_protocols is empty, so nothing would be tested; choose from {tuple(PROTOCOLS)}")


@dataclass
class TestArguments(ProtocolArguments):
    """The same for a recipe that trains, and whether it ends with recommendations to look at."""

    show_users: int = field(
        default=0, metadata={"help": "Print what is recommended to so many users of the test split, at the end."}
    )

    def __post_init__(self):
        super().__post_init__()
        if self.show_users < 0:
            raise ValueError(f"show_users is {self.show_users}; pass 0 or the number of users")


__all__ = ["ProtocolArguments", "TestArguments"]
