"""Settings: what is refused at start, and that no value is ever shown."""

import json
from typing import Any

import pytest
from pydantic import SecretStr

from shared.settings import ConfigurationError
from twins.controller import is_duration
from twins.settings import Settings, load

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
    assert (settings.postgres_pool_max, settings.postgres_pool_reserved) == (14, 4)


def test_every_missing_setting_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as refused:
        load()

    for name in ("POSTGRES_DSN", "MONGODB_URI", "DIGEST_KEY"):
        assert f"{name}:" in str(refused.value)


def test_some_source_of_keys_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="JWT_SECRETS, KEY_VAULT_URL or AUTH_ISSUERS"):
        loaded(monkeypatch, JWT_SECRETS=None)
    with pytest.raises(ConfigurationError, match="RECEIPT_KEYS or KEY_VAULT_URL"):
        loaded(monkeypatch, RECEIPT_KEYS=None)
    vault = loaded(monkeypatch, JWT_SECRETS=None, RECEIPT_KEYS=None, KEY_VAULT_URL="https://v.vault.azure.net")
    assert (vault.jwt_secrets, vault.receipt_keys) == ((), None)


def test_common_work_keeps_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loaded(monkeypatch, POSTGRES_POOL_MAX="5").postgres_pool_reserved == 4
    with pytest.raises(ConfigurationError, match="POSTGRES_POOL_RESERVED must be less than POSTGRES_POOL_MAX"):
        loaded(monkeypatch, POSTGRES_POOL_MAX="4")


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
        ("POSTGRES_POOL_RESERVED", "-1"),
        ("POSTGRES_ACQUIRE_TIMEOUT", "0"),
        ("POSTGRES_AUTH", "secret-thing"),
        ("MONGODB_AUTH", "secret-thing"),
        ("MONGODB_TIMEOUT", "secret-thing"),
        ("MONGODB_DATABASE", "x" * 64),
        ("JWT_REQUIRE_EXP", "secret-thing"),
        ("JWT_MAX_LIFE", "0"),
        ("JWT_NBF_LEEWAY", "301"),
        ("KEY_VAULT_MAX_AGE", "0"),
        ("ACCOUNT_REQUESTS", "0"),
        ("ACCOUNT_CONCURRENCY", "0"),
        ("ACCOUNT_DECISIONS", "0"),
        ("ACCOUNT_NOES", "0"),
        ("ACCOUNT_TWINS", "-1"),
        ("ACCOUNT_VERSIONS", "-1"),
        ("ACCOUNT_BYTES", "-1"),
        ("ACCOUNT_CONSENTS", "-1"),
        ("MIN_ASSURANCE", "secret-thing"),
        ("LOG_LEVEL", "secret-thing"),
        ("ERASURE_SECOND_SWEEP", "-1"),
        ("BACKUP_RETENTION_DAYS", "-1"),
        ("JOURNAL_RETENTION_DAYS", "0"),
        ("JOURNAL_RETENTION_DAYS", "36"),
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


def test_keys_from_the_vault_must_outlive_their_refresh(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="KEY_VAULT_MAX_AGE must be at least twice KEY_VAULT_REFRESH"):
        loaded(monkeypatch, KEY_VAULT_REFRESH="300", KEY_VAULT_MAX_AGE="599")
    assert loaded(monkeypatch, KEY_VAULT_REFRESH="300", KEY_VAULT_MAX_AGE="600").key_vault_max_age == 600


ROW: dict[str, Any] = {
    "issuer": "https://id.example",
    "audience": ["twins"],
    "subject_claim": "sub",
    "algorithms": ["RS256"],
    "jwks_uri": "https://id.example/keys",
}


def rows(*changes: dict[str, Any]) -> str:
    """Return `AUTH_ISSUERS` with a good row for each of `changes`; None drops a member."""
    return json.dumps([{k: v for k, v in (ROW | change).items() if v is not None} for change in changes])


def test_with_issuers_alone_no_jwt_secret_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = loaded(monkeypatch, JWT_SECRETS=None, AUTH_ISSUERS=rows({}))
    assert [issuer.issuer for issuer in settings.auth_issuers] == ["https://id.example"]
    assert not settings.takes_hs256

    assert loaded(monkeypatch, AUTH_ISSUERS=rows({})).takes_hs256
    assert loaded(monkeypatch, AUTH_ISSUERS="[]").auth_issuers == ()
    vault = {"JWT_SECRETS": None, "RECEIPT_KEYS": None, "KEY_VAULT_URL": "https://v.vault.azure.net"}
    assert loaded(monkeypatch, **vault, AUTH_ISSUERS=None).key_vault_jwt_secret == "jwt-secret"
    assert not loaded(monkeypatch, **vault, AUTH_ISSUERS=rows({}), KEY_VAULT_JWT_SECRET="").takes_hs256
    assert loaded(monkeypatch, **vault, AUTH_ISSUERS=rows({}), KEY_VAULT_JWT_SECRET="jwt-secret").takes_hs256


@pytest.mark.parametrize(
    ("change", "place"),
    [
        *(({name: None}, name) for name in ("issuer", "audience", "subject_claim", "algorithms")),
        ({"issuer": ""}, "issuer"),
        ({"issuer": "https://id.example\nmore"}, "issuer"),
        ({"issuer": "i" * 256}, "issuer"),
        ({"issuer": ["https://id.example"]}, "issuer"),
        ({"audience": []}, "audience"),
        ({"audience": "twins"}, "audience"),
        ({"audience": [""]}, "audience[0]"),
        ({"subject_claim": ""}, "subject_claim"),
        ({"owner_claim": "a b"}, "owner_claim"),
        ({"scope_claims": []}, "scope_claims"),
        ({"algorithms": []}, "algorithms"),
        ({"algorithms": ["HS256"]}, "algorithms[0]"),
        ({"algorithms": ["RS256", "none"]}, "algorithms[1]"),
        ({"typ": []}, "typ"),
        ({"tenants": ["a/b"]}, "tenants[0]"),
        ({"bare_subjects": "perhaps"}, "bare_subjects"),
        ({"jwks_uri": "http://id.example/keys"}, "jwks_uri"),
        ({"jwks_uri": "https://user:secret-thing@id.example/keys"}, "jwks_uri"),
        ({"jwks_uri": "https://id.example/keys#one"}, "jwks_uri"),
        ({"jwks_uri": "https:///keys"}, "jwks_uri"),
        ({"jwks_uri": "https://id.example:port/keys"}, "jwks_uri"),
        ({"jwks_uri": None, "discovery": "ftp://id.example"}, "discovery"),
        ({"jwksuri": "secret-thing"}, "jwksuri"),
    ],
)
def test_a_bad_row_of_issuers_is_named_with_its_member(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], place: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        loaded(monkeypatch, AUTH_ISSUERS=rows({"issuer": "https://good.example"}, change))

    assert f"AUTH_ISSUERS[1].{place}: " in str(refused.value)
    assert "secret-thing" not in str(refused.value)
    assert "AUTH_ISSUERS[0]" not in str(refused.value)


@pytest.mark.parametrize(
    ("issuers", "reason"),
    [
        ("https://id.example", "AUTH_ISSUERS: Value error, must be a JSON array of objects"),
        ("{}", "AUTH_ISSUERS: "),
        ('["https://id.example"]', "AUTH_ISSUERS[0]: "),
        (rows({"jwks_uri": None}), "AUTH_ISSUERS[0]: Value error, needs either discovery or jwks_uri"),
        (rows({"discovery": "https://id.example/d"}), "AUTH_ISSUERS[0]: Value error, needs either"),
        (rows({"tenants": ["one"]}), "AUTH_ISSUERS[0]: Value error, tenants and {tenantid}"),
        (rows({"issuer": "https://x/{tenantid}"}), "AUTH_ISSUERS[0]: Value error, tenants and {tenantid}"),
        (rows({}, {}), "AUTH_ISSUERS has an issuer twice"),
        (rows({"issuer": "https://x/one"}, {"issuer": "https://x/{tenantid}", "tenants": ["one"]}), "twice"),
        (rows({"issuer": "https://hs.example"}), "JWT_ISSUER, of HS256 tokens, is an issuer of AUTH_ISSUERS too"),
        (rows({"bare_subjects": True}), "bare_subjects"),
        (rows({"bare_subjects": True}, {"issuer": "x", "bare_subjects": True}), "only one issuer"),
    ],
)
def test_issuers_that_do_not_fit_together_are_refused(
    monkeypatch: pytest.MonkeyPatch, issuers: str, reason: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        loaded(monkeypatch, AUTH_ISSUERS=issuers, JWT_ISSUER="https://hs.example")

    assert reason in str(refused.value)


CONTROLLER: dict[str, Any] = {
    "name": "Example Ltd",
    "address": "1 Example Street",
    "contact": "privacy@example.com",
    "storage_locations": ["IE", "US-VA"],
    "retention_period": "P10Y",
    "jurisdiction": "EU",
    "withdrawal_method": "https://example.com/withdraw",
}


def test_a_controller_is_whole_or_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loaded(monkeypatch).controller is None
    assert loaded(monkeypatch, CONTROLLER="").controller is None
    controller = loaded(monkeypatch, CONTROLLER=json.dumps(CONTROLLER)).controller
    assert controller is not None
    assert json.loads(controller.model_dump_json()) == CONTROLLER


@pytest.mark.parametrize(
    ("controller", "reason"),
    [
        ("Example Ltd", "CONTROLLER: Value error, must be a JSON object"),
        ("[]", "CONTROLLER: "),
        *((json.dumps({**CONTROLLER, name: "\u200b"}), f"CONTROLLER.{name}: ") for name in CONTROLLER),
        *(
            (json.dumps({other: CONTROLLER[other] for other in CONTROLLER if other != name}), f"CONTROLLER.{name}: ")
            for name in CONTROLLER
        ),
        (json.dumps({**CONTROLLER, "storage_locations": []}), "CONTROLLER.storage_locations: "),
        (json.dumps({**CONTROLLER, "storage_locations": ["Ireland"]}), "CONTROLLER.storage_locations[0]: "),
        (json.dumps({**CONTROLLER, "jurisdiction": "ie"}), "CONTROLLER.jurisdiction: "),
        (json.dumps({**CONTROLLER, "retention": "P1Y"}), "CONTROLLER.retention: "),
    ],
)
def test_a_controller_that_does_not_fit_is_named_by_its_member(
    monkeypatch: pytest.MonkeyPatch, controller: str, reason: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        loaded(monkeypatch, CONTROLLER=controller)

    assert reason in str(refused.value)
    assert "Ireland" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        *((text, True) for text in ("P10Y", "P1Y6M", "P2W", "P30D", "PT36H", "P1DT12H")),
        *((text, False) for text in ("P", "PT", "P1DT", "10Y", "P10Y\n", "until the twin is erased", "P1.5Y")),
    ],
)
def test_a_period_is_a_duration_or_words(text: str, is_one: bool) -> None:
    assert is_duration(text) is is_one


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/keys", "http://localhost/keys", "http://[::1]:9/keys"])
def test_addresses_on_this_machine_may_be_http(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    assert loaded(monkeypatch, AUTH_ISSUERS=rows({"jwks_uri": address})).auth_issuers[0].jwks_uri == address


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("https://twins.example.com", "https://twins.example.com"),
        ("https://twins.example.com:8443/", "https://twins.example.com:8443"),
        ("http://127.0.0.1:7071", "http://127.0.0.1:7071"),
        ("http://localhost:7071/", "http://localhost:7071"),
    ],
)
def test_the_address_of_the_service_is_an_origin(monkeypatch: pytest.MonkeyPatch, address: str, origin: str) -> None:
    assert loaded(monkeypatch, PUBLIC_URL=address).public_url == origin


@pytest.mark.parametrize(
    "address",
    [
        "http://twins.example.com",
        "https://twins.example.com/api",
        "https://twins.example.com//",
        "https://twins.example.com?x=1",
        "https://twins.example.com/#x",
        "https://user:secret-thing@twins.example.com",
        "https://twins.example.com\nx",
        'https://twins.example.com"',
        "twins.example.com",
        "//twins.example.com",
        "https://",
    ],
)
def test_an_address_that_is_no_origin_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    with pytest.raises(ConfigurationError, match="PUBLIC_URL: ") as refused:
        loaded(monkeypatch, PUBLIC_URL=address)
    assert "secret-thing" not in str(refused.value)


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
