"""`/organization`: the erasure of everything that an organisation owns."""
