"""Settings: defaults, refusals, and the command line."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from accelerate.state import AcceleratorState
from trl import GRPOConfig, TrlParser

from hf_latentrec.trainer import (
    LASARGRPOConfig,
    LASARSFTConfig,
    LatentConfig,
    LatentSFTConfig,
    LatentTrainer,
    LRGRPOConfig,
    RecConfig,
    RecGRPOConfig,
)


# The second is its name before transformers 5.23.
CHECKPOINTING = next(
    name
    for name in ("activation_checkpointing", "gradient_checkpointing")
    if name in LatentConfig.__dataclass_fields__
)

OF_LASAR_ALONE = {
    "group_repair",
    "terminal_kl_weight",
    "reinforce_coef",
    "reinforce_n_penalty",
    "reinforce_entropy",
    "reinforce_baseline_decay",
}


@pytest.mark.parametrize(
    "config_class", [LatentConfig, LatentSFTConfig, LASARSFTConfig, LASARGRPOConfig, LRGRPOConfig]
)
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor is 0.1"),
        ({CHECKPOINTING: True}, "checkpointing drops"),
        ({"fsdp": True, "fsdp_config": {"activation_checkpointing": "true"}}, "checkpointing drops"),
        ({"neftune_noise_alpha": 5.0}, "neftune_noise_alpha is 5.0"),
        ({"use_cache": False}, "use_cache is False"),
        ({"remove_unused_columns": True}, "remove_unused_columns"),
        ({"train_sampling_strategy": "batch_rebalance"}, "batch_rebalance"),
        ({"normalize": "items"}, "normalize is 'items'"),
    ],
)
def test_refused_by_all(tmp_path, config_class, setting, message):
    with pytest.raises(ValueError, match=f"{config_class.__name__}: .*{message}"):
        config_class(tmp_path, use_cpu=True, **setting)


def test_checkpointing_of_the_launch_is_refused(tmp_path, make_model, monkeypatch):
    config = LatentConfig(tmp_path, use_cpu=True)
    LatentTrainer(make_model(), config)  # makes the state that the next one shares
    monkeypatch.setitem(AcceleratorState._shared_state, "fsdp_plugin", SimpleNamespace(activation_checkpointing=True))
    with pytest.raises(ValueError, match="LatentTrainer: .*checkpointing drops"):
        LatentTrainer(make_model(), config)


@pytest.mark.parametrize("config_class", [RecGRPOConfig, LASARGRPOConfig, LRGRPOConfig])
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"num_generations": 1}, "num_generations is 1"),
        ({"beta": -1e-3}, "beta is -0.001"),
        ({"epsilon": 0.0}, "epsilon is 0.0"),
        ({"epsilon": 1.0}, "epsilon is 1.0"),
        ({"epsilon_high": 0.0}, "epsilon_high is 0.0"),
        ({"num_iterations": 0}, "num_iterations is 0"),
        ({"num_iterations": 2, "save_steps": 5}, "save_steps is 5 and num_iterations 2"),
        ({"num_iterations": 2, "save_steps": 0.5}, "save_steps is 0.5 and num_iterations 2"),
        (
            {"num_iterations": 2, "save_strategy": "best", "eval_strategy": "steps", "eval_steps": 3},
            "eval_steps is 3 and num_iterations 2",
        ),
    ],
)
def test_refused_by_all_grpo(tmp_path, config_class, setting, message):
    with pytest.raises(ValueError, match=f"{config_class.__name__}: {message}"):
        config_class(tmp_path, use_cpu=True, **setting)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"scale_rewards": "batch"}, "scale_rewards is 'batch'"),
        ({"group_repair": "worst"}, "group_repair is 'worst'; choose one of"),
        ({"terminal_kl_weight": -1.0}, "terminal_kl_weight is -1.0; pass 0"),
        ({"reinforce_coef": float("nan")}, "reinforce_coef is nan"),
        ({"reinforce_n_penalty": -0.1}, "reinforce_n_penalty is -0.1"),
        ({"reinforce_entropy": float("inf")}, "reinforce_entropy is inf"),
        ({"reinforce_baseline_decay": 1.0}, "reinforce_baseline_decay is 1.0"),
    ],
)
def test_refused_by_lasar(tmp_path, setting, message):
    with pytest.raises(ValueError, match=f"LASARGRPOConfig: {message}"):
        LASARGRPOConfig(tmp_path, use_cpu=True, **setting)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"alignment": "l1"}, "alignment is 'l1'; choose one of"),
        ({"align_weight": -0.1}, "align_weight is -0.1; pass 0"),
        ({"policy_weight": float("nan")}, "policy_weight is nan"),
        ({"max_missing_cot": 1.5}, "max_missing_cot is 1.5; pass a share"),
    ],
)
def test_refused_by_lasar_sft(tmp_path, setting, message):
    with pytest.raises(ValueError, match=f"LASARSFTConfig: {message}"):
        LASARSFTConfig(tmp_path, use_cpu=True, **setting)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"noise_std": 0.0}, "noise_std is 0.0; pass a positive number"),
        ({"noise_std": -1.5}, "noise_std is -1.5"),
        ({"noise_std": float("nan")}, "noise_std is nan"),
        ({"noise_std": float("inf")}, "noise_std is inf"),
        ({"noise_scale": "thought"}, "noise_scale is 'thought'; choose one of"),
        ({"reward": "ndcg"}, "reward is 'ndcg'; choose one of"),
        ({"advantage": "global"}, "advantage is 'global'; choose one of"),
    ],
)
def test_refused_by_lr_grpo(tmp_path, setting, message):
    with pytest.raises(ValueError, match=f"LRGRPOConfig: {message}"):
        LRGRPOConfig(tmp_path, use_cpu=True, **setting)


def test_grpo_takes_the_names_of_trl():
    ours = set(LASARGRPOConfig.__dataclass_fields__) - set(LatentConfig.__dataclass_fields__)
    ours = {name for name in ours if name not in OF_LASAR_ALONE}
    assert ours <= set(GRPOConfig.__dataclass_fields__)
    assert len(ours) == 8


def test_grpo_defaults_are_those_of_table_7(tmp_path):
    config = LASARGRPOConfig(tmp_path, use_cpu=True)
    assert (config.num_generations, config.beta, config.epsilon, config.learning_rate) == (8, 1e-3, 0.2, 1e-5)
    assert config.lr_scheduler_type == "cosine" and config.get_warmup_steps(100) == 8
    assert config.normalize == "catalog" and LatentSFTConfig(tmp_path, use_cpu=True).normalize == "vocabulary"
    assert config.terminal_kl_weight is None and config.reinforce_coef is None  # by what there is
    assert config.reinforce_n_penalty == 5e-4


def test_lasar_sft_defaults_are_those_of_table_7(tmp_path):
    config = LASARSFTConfig(tmp_path, use_cpu=True)
    assert (config.alignment, config.align_weight, config.policy_weight) == ("kl", 0.1, 0.1)
    assert (config.learning_rate, config.num_train_epochs, config.lr_scheduler_type) == (5e-5, 20, "cosine")
    assert config.get_warmup_steps(100) == 8


def test_lr_grpo_defaults_are_those_of_the_paper(tmp_path):
    config = LRGRPOConfig(tmp_path, use_cpu=True)
    assert (config.num_generations, config.beta, config.epsilon, config.epsilon_high) == (8, 0.0, 0.2, 0.28)
    assert (config.noise_std, config.noise_scale, config.reward, config.advantage) == (
        1.5,
        "absolute",
        "perplexity",
        "batch",
    )
    assert (config.num_iterations, config.num_train_epochs, config.learning_rate) == (1, 1, 1e-4)
    assert config.train_only_reasoner and config.normalize == "vocabulary"


@pytest.mark.parametrize("config_class", [LatentSFTConfig, LASARSFTConfig, LASARGRPOConfig, LRGRPOConfig])
def test_command_line(tmp_path, config_class):
    argv = ["--output_dir", str(tmp_path), "--use_cpu", "--normalize", "catalog", "--max_steps", "3"]
    if config_class is LASARGRPOConfig:
        argv += ["--reward_weights", "1.0", "0.5", "--disable_dropout", "False"]
        argv += ["--reinforce_coef", "0", "--group_repair", "target"]
    if config_class is LRGRPOConfig:
        argv += ["--noise_scale", "relative", "--train_only_reasoner", "False", "--num_train_epochs", "2"]
    (config,) = TrlParser((config_class,)).parse_args_and_config(argv)
    assert (config.normalize, config.max_steps, config.label_names) == ("catalog", 3, ["labels"])
    if config_class is LASARGRPOConfig:
        assert config.reward_weights == [1.0, 0.5] and config.disable_dropout is False
        assert (config.reinforce_coef, config.group_repair) == (0, "target")
    if config_class is LRGRPOConfig:
        assert (config.noise_scale, config.train_only_reasoner, config.num_train_epochs) == ("relative", False, 2)


@pytest.mark.parametrize("config_class", [LASARSFTConfig, LASARGRPOConfig, LRGRPOConfig])
def test_help_renders(capsys, config_class):
    with pytest.raises(SystemExit):
        TrlParser((config_class,)).parse_args_and_config(["--help"])
    assert "--learning_rate" in capsys.readouterr().out


@pytest.mark.parametrize("config_class", [RecGRPOConfig, LASARSFTConfig, LASARGRPOConfig, LRGRPOConfig])
def test_every_setting_says_what_it_is(config_class):
    inherited = set(RecConfig.__mro__[1].__dataclass_fields__)
    fields = config_class.__dataclass_fields__
    assert [name for name in fields if name not in inherited and not fields[name].metadata.get("help")] == []
