-- Distributes the tables over the nodes of a Citus cluster, by twin. docs/OPERATIONS.md, "Citus", says what was tried, on
-- which revision of the schema, and what stays open: read it first. No test of `make test` runs it, and it was never run on a
-- cluster of several machines, nor with data in the tables.
--
-- Run it by psql on the coordinator, once, as the role that owns the schema, after `python -m migrations upgrade` to the
-- revision of this file and before anything is stored. The extension `citus`, the nodes, and the roles of each node are
-- there by then. No instance runs.
\set ON_ERROR_STOP on

-- A statement on all shards goes to one after the other: many of one transaction write to tables with foreign keys.
SET citus.multi_shard_modify_mode = 'sequential';
-- The triggers name the time and the principals of a twin, and keep the ledger: each on the shard of its row.
SET citus.enable_unsafe_triggers = on;
-- The shards are visible, to see and to grant.
SET citus.override_table_visibility = off;
SELECT format('ALTER DATABASE %I SET %s', current_database(), setting) FROM (VALUES
    ('citus.multi_shard_modify_mode = ''sequential'''),
    ('citus.enable_unsafe_triggers = on'),
    ('citus.override_table_visibility = off')
) AS settings (setting) \gexec

-- A distributed table refers to no local one. Only erase_twins() writes here, in the transaction of the erasure.
ALTER TABLE erased_twins DROP CONSTRAINT erased_twins_erasure_id_fkey;

-- A twin's tables, all rows of a twin on one node.
SELECT create_distributed_table('twins', 'id');
SELECT create_distributed_table(name, 'twin_id', colocate_with => 'twins') FROM unnest(ARRAY[
    'consent_events', 'consent_states', 'consents', 'erased_consents', 'erased_twins', 'locks', 'named_accounts', 'notices',
    'persona_versions', 'salts', 'stops', 'withdrawals'
]) AS name;

-- A shard's trigger may not write a table of the cluster. So nothing counts here what an account stores, and no quota holds.
DROP TRIGGER twins_usage ON twins;
DROP TRIGGER notices_made ON notices;
DROP TRIGGER notices_changed ON notices;
DROP TRIGGER consents_counted ON consents;
DROP TRIGGER consents_emptied ON consents;
DROP TRIGGER twins_consents ON twins;

-- Nor may one write the journal of each no. So none is kept here, and a restore has nothing to repeat.
DROP TRIGGER consent_events_journal ON consent_events;
DROP TRIGGER erased_accounts_journal ON erased_accounts;

-- On every node: statements on twins read them.
SELECT create_reference_table(name) FROM unnest(ARRAY[
    'account_consents', 'account_usage', 'erased_accounts', 'external_ids', 'restore_state'
]) AS name;

-- On the coordinator, and known to all nodes. Plain local ones would not take part in a distributed transaction, and a
-- crash in its second phase could lose an erasure's job.
SELECT citus_add_local_table_to_metadata(name) FROM unnest(ARRAY[
    'erased_documents', 'erased_ledgers', 'erasures', 'idempotency_keys', 'journal_entries', 'ledger_rounds',
    'lost_events', 'outbox', 'restores', 'sweeps', 'unconfirmed_twins'
]) AS name;

-- A transaction may not change a shard as two users, and Citus hands on no privileges of single columns. So the functions
-- run as their caller, and the serving role may write what they write: here the database does not guard itself against it.
SELECT format('ALTER FUNCTION %s SECURITY INVOKER', oid::regprocedure) FROM pg_proc
WHERE pronamespace = 'public'::regnamespace AND prosecdef \gexec
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO twins_serving;
REVOKE ALL ON alembic_version FROM twins_serving;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO twins_serving;

-- They read a reference table, which is whole on each node, within statements on shards.
ALTER FUNCTION account_erased(text, timestamptz) SET citus.allow_nested_distributed_execution = on;
ALTER FUNCTION stores_at_most(text, bigint, bigint, bigint) SET citus.allow_nested_distributed_execution = on;
ALTER FUNCTION has_fewer_consents(text, bigint) SET citus.allow_nested_distributed_execution = on;
