"""The serving role turned hostile: what somebody may try who has its password."""

GUARDED = (
    *("consents", "consent_states", "withdrawals", "locks", "stops", "notices", "salts", "named_accounts"),
    *("consent_events", "erased_accounts", "erased_twins", "external_ids", "erased_consents"),
)
"""Tables that only functions of the database change."""

_CHANGED = {
    "consents": "expires_at = NULL",
    "consent_states": "no = NULL",
    "withdrawals": "withdrawn_at = now()",
    "locks": "opened_at = now()",
    "stops": "seq = 0",
    "notices": "notice = ''",
    "salts": "salt = ''",
    "named_accounts": "account = 'mallory'",
    "consent_events": "event = ''",
    "erased_accounts": "account = NULL",
    "erased_twins": "erasure_id = erasure_id",
    "external_ids": "twin_id = gen_random_uuid()",
    "erased_consents": "state = 'given'",
}
_TWIN = {
    "id": "gen_random_uuid()",
    "owner": "'mallory'",
    "ledger_hash": "decode(repeat('00', 32), 'hex')",
    "ledger_seq": "0",
    "ledger_at": "now()",
    "stored_consents": "0",
    "erased_at": "NULL",
    "stop_seq": "NULL",
    "spoken": "0",
    "created_at": "now()",
}
_SHADOW = "RETURNS boolean LANGUAGE sql AS 'SELECT false'"

REFUSED = (
    *(f"UPDATE {table} SET {change}" for table, change in _CHANGED.items()),
    *(f"{act} {table}" for table in GUARDED for act in ("DELETE FROM", "TRUNCATE")),
    *(f"INSERT INTO {table} DEFAULT VALUES" for table in GUARDED),
    *(f"INSERT INTO {table} SELECT * FROM {table}" for table in GUARDED),
    *(f"UPDATE twins SET {column} = {value}" for column, value in _TWIN.items()),
    *("DELETE FROM twins", "TRUNCATE twins", "TRUNCATE twins CASCADE"),
    "INSERT INTO twins (id, owner, twin_name, use_case, tone) VALUES (gen_random_uuid(), 'a', 'a', 'a', 'a')",
    "INSERT INTO twins (owner, twin_name, use_case, tone, ledger_seq) VALUES ('a', 'a', 'a', 'a', 7)",
    # The functions that check nothing.
    "SELECT append_event(gen_random_uuid(), 'given', 'mallory', '', now())",
    "SELECT place_lock(gen_random_uuid(), 'mallory', 'account', NULL, NULL, NULL)",
    "SELECT salt_of(gen_random_uuid(), gen_random_uuid(), 1)",
    "SELECT seal(decode(repeat('00', 32), 'hex'), 'mallory')",
    "SELECT sealed_list(decode(repeat('00', 32), 'hex'), '{voice}')",
    "SELECT moment_text(now())",
    # The guards.
    "SET session_replication_role = replica",
    "SELECT set_config('session_replication_role', 'replica', false)",
    "ALTER TABLE consent_events DISABLE TRIGGER ALL",
    "ALTER TABLE twins DISABLE TRIGGER USER",
    "DROP TRIGGER consent_events_append_only ON consent_events",
    "DROP TRIGGER twins_time ON twins",
    "ALTER TABLE consents OWNER TO CURRENT_USER",
    "ALTER TABLE consent_events DROP CONSTRAINT consent_events_hash",
    "DROP TABLE consent_events",
    "DROP VIEW ledger_states",
    "DO $$ BEGIN LOCK TABLE consents, twins IN ACCESS EXCLUSIVE MODE; END $$",
    # What a function would find in place of its own.
    f"CREATE FUNCTION account_erased(text, timestamptz, int) {_SHADOW}",
    f"CREATE OR REPLACE FUNCTION account_erased(account text, since timestamptz) {_SHADOW}",
    "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'",
    f"CREATE FUNCTION pg_temp.account_erased(text, timestamptz) {_SHADOW}",
    "CREATE TEMP TABLE consent_states (twin_id uuid, purpose text)",
    "CREATE TEMP VIEW locks AS SELECT 1",
    "CREATE TABLE public.shadow (id int)",
    "CREATE SCHEMA shadow",
)
"""Statements for which the serving role lacks the privilege."""
