"""`/.well-known/jwks.json`: the keys that verify receipts and certificates."""
