"""`/twins/{twin_id}/ledger`: the events of a twin's consent, in a hash chain. Other resources append events."""
