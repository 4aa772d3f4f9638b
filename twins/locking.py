"""The row lock of twins. A transaction that changes a twin or its persona takes it first.

The transaction reads the grounds of its decision in a later statement: the locking statement may have
waited, and sees other tables in their state before the wait. The database's functions for consents and
refusals take the same lock.
"""

from uuid import UUID

from shared.stores.postgres import Connection
from twins.parent import no_twin


async def lock(connection: Connection, owner: str, twin_id: UUID) -> None:
    """Lock a twin of this owner until the transaction ends; raises `NotFound`."""
    sql = """
        SELECT FROM twins t
        WHERE t.id = $1 AND t.owner = $2 AND t.erased_at IS NULL AND NOT EXISTS (
            SELECT FROM erased_accounts e WHERE e.account = t.owner AND e.erased_at >= t.created_at
        )
        FOR NO KEY UPDATE
    """
    if not await connection.fetch(sql, twin_id, owner):
        raise no_twin()
