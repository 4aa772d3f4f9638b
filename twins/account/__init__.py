"""`/me`: the stored data of the caller, the consents they gave, and the erasure of both."""
