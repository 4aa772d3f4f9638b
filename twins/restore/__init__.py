"""After a restore: the gate is closed until every no of the journal is in the ledgers again. It serves nothing."""
