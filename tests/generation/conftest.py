"""One tiny model for all tests of generation."""

import pytest
from numpy.typing import NDArray

from tests.generation.tiny import Teacher, TinyModel, make_model, make_prompts


@pytest.fixture(scope="session")
def model() -> TinyModel:
    return make_model()


@pytest.fixture(scope="session")
def prompts() -> list[NDArray]:
    return make_prompts()


@pytest.fixture(scope="session")
def teacher(model: TinyModel) -> Teacher:
    return Teacher(model)
