import pytest
from torch import nn

from hf_latentrec.models.modes import eval_mode, in_mode


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_before_comes_back_after_an_error(before, training):
    model = nn.Sequential(nn.Dropout()).train(before)
    with pytest.raises(RuntimeError), in_mode(model, training=training):
        assert model.training == model[0].training == training
        raise RuntimeError
    assert model.training == model[0].training == before


def test_what_is_no_network_is_left_alone():
    model = object()
    with eval_mode(model):
        assert not hasattr(model, "training")
    assert not hasattr(model, "training")
