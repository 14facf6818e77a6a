"""Errors cross from one process to another whole."""

from __future__ import annotations

import pickle

import pytest

from renalkit.errors import ConfigError, InputRefused, Reason, RenalkitError, StoreError


@pytest.mark.parametrize(
    "error",
    [
        StoreError("disk full", where="pixels", remedy="free some space"),
        InputRefused(Reason.UNREADABLE, "a folder", where="x.png", expected="a file"),
        ConfigError(["--a: wrong", "--b: wrong too"], where="plan.toml"),
    ],
)
def test_an_error_is_the_same_in_another_process(error: RenalkitError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert again.exit_code == error.exit_code
