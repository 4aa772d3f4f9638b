"""`/twins/{twin_id}/decision` and `/decisions`: the gate. It reads, and never writes or locks."""
