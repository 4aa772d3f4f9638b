"""`/.well-known/oauth-protected-resource`: how a client gets a token for this service."""
