"""Real PostgreSQL and mongod processes for `make run` and the tests; never imported in production."""
