"""What train_lasar.py can do: its stages, and how each starts and is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training_setup import build_model, build_processor, model_settings
from training_stages import Stage, load_start, stage_settings
from trl import get_peft_config


if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from hf_latentrec import LatentRecProcessor
    from hf_latentrec.cot import AnchorStore


ANCHORS = "anchors"  # among the stages, but nothing is trained
DEFAULT_STAGES = ("stage1", "stage2", "grpo", "stage2_control", "grpo_control")


@dataclass(frozen=True)
class LasarStage(Stage):
    """
    A stage of LASAR's recipe.

    Args:
        algorithm (`str`, *optional*): what trains it, by the name that a trainer and its settings share (`"LASARSFT"`
            of `LASARSFTTrainer` and `LASARSFTConfig`).
        budget (`str`, *optional*): whose epochs, learning rate and batch it has: `"stage1"`, `"stage2"`, `"mixed"`
            (stage 1's, with the epochs of both), or `"rl"` (the plain names).
        adaptive_depth (`bool`, *optional*): every user has a depth of its own, up to `num_thoughts`.
        uses_anchors (`bool`, *optional*): its losses read the anchors, or how many there are.
        writes_text (`bool`, *optional*): it learns to write the teacher's text before the answer.
        settings (`dict`, *optional*): of the trainer, beside the shared ones.
    """

    algorithm: str = "LatentSFT"
    budget: str = "stage1"
    adaptive_depth: bool = False
    uses_anchors: bool = False
    writes_text: bool = False
    settings: dict = field(default_factory=dict)

    @property
    def reinforces(self) -> bool:
        """Whether the stage is reinforcement learning."""
        return self.budget == "rl"


def plan(num_thoughts: int = 8) -> dict[str, LasarStage]:
    """
    All stages by name. Those of a paper's table start from the same model and take the same steps.

    Args:
        num_thoughts (`int`, *optional*, defaults to 8): thoughts at most, N_max.
    """

    def latent_sft(name: str, label: str, alignment: str) -> LasarStage:
        return LasarStage(
            name, "stage1", num_thoughts, label, "LASARSFT", "stage2",
            adaptive_depth=True, uses_anchors=True, settings={"alignment": alignment},
        )  # fmt: skip

    def latent_rl(name: str, label: str, uses_anchors: bool = True, **settings: Any) -> LasarStage:
        return LasarStage(
            name, "stage2", num_thoughts, label, "LASARGRPO", "rl",
            adaptive_depth=True, uses_anchors=uses_anchors, settings=settings,
        )  # fmt: skip

    no_depth, no_anchor = {"reinforce_coef": 0.0}, {"terminal_kl_weight": 0.0}
    stages = [
        LasarStage("stage1", None, 0, "stage 1"),
        # Table 2, from no thoughts on
        LasarStage("stage2_control", "stage1", 0, "stage 2 without thoughts", budget="stage2"),
        latent_sft("stage2_none", "stage 2, no alignment", "none"),
        latent_sft("stage2", "stage 2, KL (LASAR)", "kl"),
        latent_sft("stage2_cosine", "stage 2, cosine", "cosine"),
        latent_sft("stage2_mse", "stage 2, MSE", "mse"),
        # Table 3, from no thoughts on
        LasarStage(
            "grpo_control", "stage2_control", 0, "GRPO without thoughts", "LASARGRPO", "rl",
            settings={**no_depth, **no_anchor},
        ),
        latent_rl("grpo_plain", "GRPO", uses_anchors=False, **no_depth, **no_anchor),
        latent_rl("grpo_terminal", "GRPO + terminal KL", **no_depth),
        latent_rl("grpo", "LASAR (+ terminal KL + REINFORCE)"),
        latent_rl("grpo_repair", "LASAR, groups repaired", group_repair="target"),
        # other ways to reason
        LasarStage("mixed", None, num_thoughts, f"mixed in one stage, N={num_thoughts}", budget="mixed"),
        LasarStage("explicit_cot", "stage1", 0, "explicit CoT", budget="stage2", writes_text=True),
    ]  # fmt: skip
    return {stage.name: stage for stage in stages}


def code_processor(data: Any, splits: DatasetDict, data_args: Any, model_args: Any) -> LatentRecProcessor:
    """Tokenizer with the items' codes, catalog, trie and prompt."""
    from transformers import AutoTokenizer

    from hf_latentrec.models.latent_reasoning.tokenization import add_item_tokens, build_byte_tokenizer

    if model_args.model_name_or_path is None:
        tokenizer = build_byte_tokenizer()
    else:
        tokenizer = AutoTokenizer.from_pretrained(model_args.model_name_or_path, revision=model_args.model_revision)
    add_item_tokens(tokenizer, data.items["semantic_id"], code_levels(data_args.data_dir))
    return build_processor(
        data,
        splits,
        tokenizer,
        data_args,
        item_tokenization="semantic_id",
        prompt_template=model_args.prompt_template,
    )


def code_levels(data_dir: str | None) -> list[list[str]]:
    """
    All tokens of the codebooks that the codes of a folder come from, with room in the extra level, so that the model
    can take up items later. None are known where the codes were published without their codebooks.
    """
    from hf_latentrec.semantic_ids.files import JSON_FILE
    from hf_latentrec.semantic_ids.semantic_ids import SemanticIds

    if data_dir is None or not (Path(data_dir) / JSON_FILE).is_file():
        return []
    return SemanticIds.load(data_dir).all_tokens(with_room=True)


def starting_model(stage: LasarStage, processor: LatentRecProcessor, model_args: Any, folder: Path):
    """The model that a stage starts from, with the stage's thoughts; a new policy of their number is drawn."""
    from hf_latentrec.models.latent_reasoning.tokenization import thought_token_ids

    reasoner = {"num_thoughts": stage.num_thoughts, "adaptive_depth": stage.adaptive_depth}
    loading = {"dtype": model_args.dtype, "attn_implementation": model_args.attn_implementation}
    if stage.start_from is not None:
        return load_start(stage, processor, model_settings(model_args), folder, reasoner_config=reasoner, **loading)
    markers = thought_token_ids(processor.tokenizer)
    settings = {name: markers[name] for name in ("start_thought_token_id", "end_thought_token_id")}
    settings["reasoner_config"] = reasoner
    return build_model(processor, model_args, settings, revision=model_args.model_revision, **loading)


def sft_changes(stage: LasarStage, stage_args: Any, cot_args: Any) -> dict[str, Any]:
    """What a stage of fine-tuning changes in the plain settings."""
    same_as = "stage1" if stage.budget == "mixed" else stage.budget
    epochs = getattr(stage_args, f"{same_as}_num_train_epochs")
    batch_size = getattr(stage_args, f"{same_as}_batch_size")
    patience = stage_args.sft_early_stopping_patience
    changes = {
        "num_train_epochs": epochs + (stage_args.stage2_num_train_epochs if stage.budget == "mixed" else 0),
        "learning_rate": getattr(stage_args, f"{same_as}_learning_rate"),
        "per_device_train_batch_size": batch_size,
        "per_device_eval_batch_size": batch_size,
        "max_steps": -1,
        "normalize": "vocabulary",
        "train_sampling_strategy": "group_by_length",
        "pack_histories": None if stage.writes_text else stage_args.pack_histories,
        "eval_on_start": False,
        "early_stopping_patience": patience,
        "eval_strategy": "no" if patience is None else "epoch",
        "load_best_model_at_end": patience is not None,
        "metric_for_best_model": None if patience is None else "loss",
        "greater_is_better": None if patience is None else False,
    }
    if patience is not None:
        changes["save_strategy"] = "epoch"
    if stage.algorithm == "LASARSFT":
        changes |= {name: getattr(stage_args, name) for name in ("align_weight", "policy_weight")}
        changes["max_missing_cot"] = cot_args.max_missing_cot
        aligns = stage.settings["alignment"] != "none" and stage_args.align_weight > 0
        if patience is not None and (aligns or stage_args.policy_weight > 0):
            # eval_loss has all terms, but the best epoch is the one that recommends best
            changes["metric_for_best_model"] = "loss/cross_entropy"
    return changes


def make_trainer(
    stage: LasarStage,
    model: Any,
    processor: LatentRecProcessor,
    train: Dataset,
    validation: Dataset,
    anchors: AnchorStore | None,
    model_args: Any,
    stage_args: Any,
    cot_args: Any,
    args: Any,
):
    """
    The trainer of a stage, with the shared settings and the stage's own in their place.

    Args:
        stage (`LasarStage`): what is trained.
        model (`PreTrainedModel`): what it starts from.
        processor (`LatentRecProcessor`): tokenizes examples.
        train, validation (`datasets.Dataset`): examples; with a column `cot`, where the stage writes text. None of
            validation where nothing validates.
        anchors (`AnchorStore`, *optional*): where the stage uses them.
        model_args, stage_args, cot_args, args: as parsed.
    """
    import hf_latentrec.trainer
    from hf_latentrec.cot import ExplicitCoTCollator
    from hf_latentrec.data import NextItemCollator
    from hf_latentrec.evaluation import RecEvaluator

    trainer_class = getattr(hf_latentrec.trainer, f"{stage.algorithm}Trainer")
    config_class = getattr(hf_latentrec.trainer, f"{stage.algorithm}Config")
    if stage.reinforces:
        changes = {"per_device_eval_batch_size": args.per_device_train_batch_size}
        own = {
            "data_collator": NextItemCollator(processor),
            "evaluator": RecEvaluator(processor, validation, stage_args.eval_num_beams, stage_args.eval_batch_size),
        }
    else:
        changes = sft_changes(stage, stage_args, cot_args)
        own = {"data_collator": ExplicitCoTCollator(processor, cot_args.max_cot_tokens)} if stage.writes_text else {}
    if stage.uses_anchors:
        own["anchors"] = anchors
    changes |= {"output_dir": str(Path(args.output_dir) / stage.name), **stage.settings}
    return trainer_class(
        model,
        stage_settings(args, config_class, **changes),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=processor,
        peft_config=get_peft_config(model_args),
        **own,
    )
