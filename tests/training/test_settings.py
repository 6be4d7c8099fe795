import pytest
from pydantic import ValidationError

from fewbits.training.settings import Training


@pytest.mark.parametrize(
    "field", [{"learning_rate": 0}, {"decay": 1}, {"clip": 0}, {"epochs": 0}, {"patience": 0}, {"precision": "16"}]
)
def test_a_setting_that_cannot_train_is_refused(field: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(field))):
        Training.model_validate(field)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValidationError, match="momentum"):
        Training.model_validate({"momentum": 0.9})


def test_what_was_added_later_is_not_in_a_dump_at_its_default() -> None:
    """The keys of older records are hashes of dumps without these fields."""
    assert set(Training().model_dump()) == {"learning_rate", "decay", "clip", "epochs", "patience", "precision"}
