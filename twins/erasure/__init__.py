"""`/erasures`: twins disappear at once, sweeps remove them from both stores, and a certificate proves it."""
