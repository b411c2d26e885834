import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException

from r3cnn.cli.configs import config_folder, register_resolvers
from r3cnn.cli.unknown_keys import keys_instead


def refusal_of(*overrides: str) -> SystemExit:
    """How a command ends that Hydra composes no configuration for: Hydra's own error is the context."""
    register_resolvers()
    with (
        initialize_config_dir(str(config_folder()), version_base="1.3"),
        pytest.raises(ConfigCompositionException) as refused,
    ):
        compose("train", overrides=list(overrides))
    ended = SystemExit(1)
    ended.__context__ = refused.value
    return ended


def test_an_unknown_key_is_answered_with_those_that_there_are_and_the_closest() -> None:
    hint = keys_instead(refusal_of("optimizer.lrr=0.1"))
    assert hint is not None
    assert hint.startswith("r3cnn: optimizer has no key 'lrr'. There are _target_, ")
    assert hint.endswith(" Did you mean 'lr'?")


def test_an_unknown_key_at_the_top_is_one_of_the_configuration() -> None:
    hint = keys_instead(refusal_of("optimiser=sgd"))
    assert hint is not None
    assert hint.startswith("r3cnn: the configuration has no key 'optimiser'.")
    assert hint.endswith(" Did you mean 'optimizer'?")


def test_hydras_own_error_is_answered_as_well_which_comes_up_with_its_full_errors() -> None:
    refusal = refusal_of("optimizer.lrr=0.1").__context__
    assert refusal is not None
    assert (keys_instead(refusal) or "").endswith(" Did you mean 'lr'?")


@pytest.mark.parametrize("override", ["experiment=r3cnn_naif", "recursion.heads.7=0"])
def test_what_is_refused_for_another_reason_is_left_to_hydra(override: str) -> None:
    assert keys_instead(refusal_of(override)) is None


def test_an_error_of_the_command_itself_is_none_of_the_keys() -> None:
    assert keys_instead(ValueError("seed is -1")) is None
