"""Settings of FLR-GRPO: defaults, refusals, and the command line."""

from __future__ import annotations

import pytest
from trl import TrlParser

from hf_latentrec.trainer import FLRGRPOConfig, RecConfig


def test_defaults_are_those_of_the_paper(tmp_path):
    config = FLRGRPOConfig(tmp_path, use_cpu=True)
    assert (config.reward_confidence_weight, config.reward_match_weight) == (0.1, 1.0)
    assert (config.epsilon, config.epsilon_high, config.beta) == (0.2, 0.28, 0.04)
    assert (config.learning_rate, config.num_train_epochs, config.num_iterations) == (1e-4, 1, 1)
    assert config.train_only_reasoner and config.normalize == "vocabulary"
    assert config.factor_losses == ["orthogonality", "diversity", "sparsity"] and config.factor_loss_weights is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"reward_confidence_weight": -0.1}, "reward_confidence_weight is -0.1; pass a finite number"),
        ({"reward_match_weight": float("nan")}, "reward_match_weight is nan"),
        ({"reward_match_weight": float("inf")}, "reward_match_weight is inf"),
        ({"reward_confidence_weight": 0.0, "reward_match_weight": 0.0}, "are both 0"),
        ({"noise_std": 0.0}, "noise_std is 0.0"),
        ({"noise_scale": "thought"}, "noise_scale is 'thought'"),
        ({"num_generations": 1}, "num_generations is 1"),
        ({"factor_losses": ["entropy"]}, "factor_losses is"),
        ({"factor_loss_weights": [1.0]}, "factor_loss_weights is"),
    ],
)
def test_refused(tmp_path, setting, message):
    with pytest.raises(ValueError, match=f"FLRGRPOConfig: .*{message}"):
        FLRGRPOConfig(tmp_path, use_cpu=True, **setting)


def test_command_line(tmp_path, capsys):
    argv = ["--output_dir", str(tmp_path), "--use_cpu", "--noise_scale", "relative", "--reward_match_weight", "0.5"]
    argv += ["--factor_losses", "diversity", "sparsity", "--factor_loss_weights", "0.1", "0.2"]
    (config,) = TrlParser((FLRGRPOConfig,)).parse_args_and_config(argv)
    assert (config.noise_scale, config.reward_match_weight) == ("relative", 0.5)
    assert (config.factor_losses, config.factor_loss_weights) == (["diversity", "sparsity"], [0.1, 0.2])
    with pytest.raises(SystemExit):
        TrlParser((FLRGRPOConfig,)).parse_args_and_config(["--help"])
    assert "--reward_confidence_weight" in capsys.readouterr().out


def test_every_setting_says_what_it_is():
    inherited = set(RecConfig.__mro__[1].__dataclass_fields__)
    fields = FLRGRPOConfig.__dataclass_fields__
    assert [name for name in fields if name not in inherited and not fields[name].metadata.get("help")] == []
