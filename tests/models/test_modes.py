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


@pytest.mark.parametrize("training", [True, False])
def test_every_module_has_its_own_mode_again(training):
    model = nn.Sequential(nn.Sequential(nn.Dropout()), nn.Dropout()).train()
    model[0].eval()
    with in_mode(model, training=training):
        assert {module.training for module in model.modules()} == {training}
    assert [module.training for module in model.modules()] == [True, False, False, True]


def test_what_is_no_network_is_left_alone():
    model = object()
    with eval_mode(model):
        assert not hasattr(model, "training")
    assert not hasattr(model, "training")
