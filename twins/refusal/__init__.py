"""`/twins/{twin_id}/refusals`: a no stands as a lock, which only the account that said it can open."""
