"""One rule for the meaning of a consent, and views through which rooms read the tables of other rooms."""

from alembic import op

revision = "20261128_3"
down_revision = "20261124_2"

_UP = (
    """
    -- It is made again below, in this transaction, with the same columns.
    -- squawk-ignore ban-drop-view
    DROP VIEW decisions
    """,
    # The meaning of a consent, in one place. By the clock at the start of the statement: now() would be
    # that of the transaction, which may have waited for a lock while consent was withdrawn.
    """
    CREATE VIEW consent_records AS
    SELECT c.*,
        CASE
            WHEN c.withdrawn_at IS NOT NULL THEN 'withdrawn'
            WHEN c.replaced_by IS NOT NULL THEN 'replaced'
            WHEN c.expires_at <= statement_timestamp() THEN 'expired'
            WHEN c.not_before > statement_timestamp() THEN 'not_yet_valid'
            ELSE 'granted'
        END AS standing
    FROM consents c
    """,
    """
    CREATE VIEW decisions AS
    SELECT s.twin_id, s.purpose, c.id AS consent_id, c.expires_at, c.standing AS reason
    FROM consent_states s JOIN consent_records c ON c.id = s.consent_id
    """,
    # The planner inlines this function. The limit changes no answer, and keeps the planner from reading all
    # purposes of a twin that has many.
    """
    CREATE FUNCTION decision_of(twin uuid, asked text)
    RETURNS TABLE (consent_id uuid, expires_at timestamptz, reason text) LANGUAGE sql STABLE AS $$
        SELECT consent_id, expires_at, reason FROM decisions WHERE twin_id = twin AND purpose = asked LIMIT 1
    $$
    """,
    """
    CREATE VIEW live_twins AS
    SELECT id, owner, twin_name, use_case, tone, version, persona_version, created_at, updated_at
    FROM twins WHERE erased_at IS NULL
    """,
    # Erased twins have a ledger too.
    "CREATE VIEW ledger_heads AS SELECT id AS twin_id, owner, ledger_seq AS seq, ledger_hash AS hash FROM twins",
    # Twins whose documents an erasure still has to count and remove.
    """
    CREATE VIEW erasing_twins AS
    SELECT t.twin_id FROM erased_twins t JOIN erasures e ON e.id = t.erasure_id WHERE e.completed_at IS NULL
    """,
    "GRANT SELECT ON consent_records, decisions, live_twins, ledger_heads, erasing_twins TO twins_serving",
)

_DOWN = (
    "DROP VIEW erasing_twins, ledger_heads, live_twins",
    "DROP FUNCTION decision_of",
    "DROP VIEW decisions, consent_records",
    """
    CREATE VIEW decisions AS
    SELECT s.twin_id, s.purpose, c.id AS consent_id, c.expires_at,
        CASE
            WHEN c.withdrawn_at IS NOT NULL THEN 'withdrawn'
            WHEN c.expires_at <= statement_timestamp() THEN 'expired'
            WHEN c.not_before > statement_timestamp() THEN 'not_yet_valid'
            ELSE 'granted'
        END AS reason
    FROM consent_states s JOIN consents c ON c.id = s.consent_id
    """,
    "GRANT SELECT ON decisions TO twins_serving",
)


def upgrade() -> None:
    for statement in _UP:
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    for statement in _DOWN:
        op.get_bind().exec_driver_sql(statement)
