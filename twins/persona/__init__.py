"""`/twins/{twin_id}/persona`: versions in PostgreSQL, each a document in MongoDB."""
