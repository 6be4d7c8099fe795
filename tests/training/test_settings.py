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
