"""Settings: what is refused at start, and that no value is ever shown."""

import json
from typing import Any

import pytest
from pydantic import SecretStr

from shared.settings import ConfigurationError, Settings, load

KEY = "k" * 32
GOOD = {
    "POSTGRES_DSN": "postgresql://x",
    "MONGODB_URI": "mongodb://x",
    "JWT_SECRETS": KEY,
    "DIGEST_KEY": "d" * 32,
    "RECEIPT_KEYS": "{}",
}


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away whatever settings this session or machine has."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def loaded(monkeypatch: pytest.MonkeyPatch, **changes: str | None) -> Settings:
    for name, value in (GOOD | changes).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    return load()


def values(secrets: tuple[SecretStr, ...]) -> list[str]:
    return [secret.get_secret_value() for secret in secrets]


def test_five_settings_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = loaded(monkeypatch)

    assert values(settings.jwt_secrets) == [KEY]
    assert settings.jwt_require_exp
    assert settings.log_names
    assert settings.postgres_pool_min == 0


def test_every_missing_setting_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as refused:
        load()

    for name in ("POSTGRES_DSN", "MONGODB_URI", "DIGEST_KEY"):
        assert f"{name}:" in str(refused.value)


def test_some_source_of_keys_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="JWT_SECRETS or KEY_VAULT_URL"):
        loaded(monkeypatch, JWT_SECRETS=None)
    with pytest.raises(ConfigurationError, match="RECEIPT_KEYS or KEY_VAULT_URL"):
        loaded(monkeypatch, RECEIPT_KEYS=None)
    vault = loaded(monkeypatch, JWT_SECRETS=None, RECEIPT_KEYS=None, KEY_VAULT_URL="https://v.vault.azure.net")
    assert (vault.jwt_secrets, vault.receipt_keys) == ((), None)


def test_an_empty_variable_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loaded(monkeypatch, JWT_AUDIENCE="", LOG_LEVEL="").jwt_audience is None


@pytest.mark.parametrize(
    "secrets",
    [
        "k" * 31,
        "é" * 15,
        "",
        " ",
        "[]",
        json.dumps([KEY, "short"]),
        json.dumps([KEY, 7]),
        json.dumps([[KEY]]),
        f'["{KEY}"',
        "[" + KEY,
    ],
)
def test_keys_that_are_too_short_or_no_keys_are_refused_without_being_shown(
    monkeypatch: pytest.MonkeyPatch, secrets: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        loaded(monkeypatch, JWT_SECRETS=secrets)

    assert KEY not in str(refused.value)
    assert "short" not in str(refused.value).replace("too short", "")
    assert refused.value.__suppress_context__


def test_several_keys_are_a_json_array_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    assert values(loaded(monkeypatch, JWT_SECRETS=json.dumps(["a" * 32, KEY])).jwt_secrets) == ["a" * 32, KEY]
    assert values(loaded(monkeypatch, JWT_SECRETS=f' ["{KEY}"]').jwt_secrets) == [KEY]


def test_a_key_is_measured_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert values(loaded(monkeypatch, JWT_SECRETS="é" * 16).jwt_secrets) == ["é" * 16]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DIGEST_KEY", "d" * 31),
        ("POSTGRES_POOL_MAX", "0"),
        ("POSTGRES_POOL_MIN", "-1"),
        ("POSTGRES_ACQUIRE_TIMEOUT", "0"),
        ("POSTGRES_AUTH", "secret-thing"),
        ("MONGODB_AUTH", "secret-thing"),
        ("MONGODB_TIMEOUT", "secret-thing"),
        ("MONGODB_DATABASE", "x" * 64),
        ("JWT_REQUIRE_EXP", "secret-thing"),
        ("LOG_LEVEL", "secret-thing"),
        ("ERASURE_SECOND_SWEEP", "-1"),
    ],
)
def test_a_setting_that_does_not_fit_is_named_and_its_value_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        loaded(monkeypatch, **{name: value})

    assert f"{name}:" in str(refused.value)
    assert "secret-thing" not in str(refused.value)
    assert "d" * 31 not in str(refused.value)


def test_secrets_do_not_show_when_settings_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    secret: dict[str, Any] = {
        "JWT_SECRETS": "s3cret-" * 5,
        "DIGEST_KEY": "s3cret-" * 5,
        "POSTGRES_DSN": "postgresql://a:s3cret-@b/c",
        "MONGODB_URI": "mongodb://a:s3cret-@b",
        "RECEIPT_KEYS": '{"d":"s3cret-"}',
        "APPLICATIONINSIGHTS_CONNECTION_STRING": "InstrumentationKey=s3cret-",
    }
    settings = loaded(monkeypatch, **secret)

    assert "s3cret-" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
