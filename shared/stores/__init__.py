"""PostgreSQL and MongoDB, each in one module, and the outbox; their failures become 503."""
