"""The exception tree: each class can be told apart, and says the same to every client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from serving import errors
from serving.errors import ComptoirError, ConfigError, RequestError, StackError

# https://platform.openai.com/docs/guides/error-codes, and what this stack adds for 5xx.
TYPES = {
    400: {"invalid_request_error"},
    401: {"authentication_error"},
    403: {"permission_error"},
    404: {"invalid_request_error"},
    405: {"invalid_request_error"},
    408: {"invalid_request_error"},
    413: {"invalid_request_error"},
    415: {"invalid_request_error"},
    417: {"invalid_request_error"},
    429: {"rate_limit_error"},
    431: {"invalid_request_error"},
    500: {"server_error"},
    501: {"server_error"},
    502: {"server_error"},
    503: {"service_unavailable_error"},
    504: {"timeout_error"},
    505: {"server_error"},
}


def tree(root: type[ComptoirError] = ComptoirError) -> Iterator[type[ComptoirError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


CLASSES = list(tree())


def test_the_whole_module_is_one_tree() -> None:
    named = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert named == set(CLASSES)
    assert len(CLASSES) > 20


def test_no_two_classes_have_the_same_code() -> None:
    seen: dict[str | None, str] = {}
    for cls in CLASSES:
        assert cls.code not in seen, f"{cls.__name__} and {seen.get(cls.code)} look the same"
        seen[cls.code] = cls.__name__


@pytest.mark.parametrize("cls", CLASSES)
def test_the_type_goes_with_the_status(cls: type[ComptoirError]) -> None:
    assert cls.type in TYPES[cls.status]


@pytest.mark.parametrize("cls", CLASSES)
def test_the_client_is_blamed_for_4xx_only(cls: type[ComptoirError]) -> None:
    assert issubclass(cls, RequestError) == (400 <= cls.status < 500)


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls is not RequestError])
def test_every_class_has_a_code_in_snake_case(cls: type[ComptoirError]) -> None:
    assert cls.code is not None
    assert cls.code.replace("_", "").isalpha()
    assert cls.code == cls.code.lower()


@pytest.mark.parametrize("cls", CLASSES)
def test_the_message_survives_in_openais_form(cls: type[ComptoirError]) -> None:
    error = cls('über "quotes"', param="a.b[0]", retry_after_s=1.5)
    assert error.as_openai() == {
        "error": {"message": 'über "quotes"', "type": cls.type, "param": "a.b[0]", "code": cls.code}
    }
    assert str(error) == error.message
    assert error.retry_after_s == 1.5


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_says_when_it_is_raised(cls: type[ComptoirError]) -> None:
    assert cls.__doc__
    assert cls.__doc__ != ComptoirError.__doc__ or cls is ComptoirError


def test_wrong_input_of_an_operator_is_one_branch() -> None:
    assert issubclass(errors.CatalogueError, ConfigError)
    assert issubclass(errors.LicenceError, ConfigError)
    assert not issubclass(StackError, ConfigError)
