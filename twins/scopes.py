"""The scopes of tokens: each adds a right to those of an owner and a person, which every token has."""

DECIDE = "twins:decide"
WATCH = "twins:watch"
PROMPT = "twins:prompt"
READ = "twins:read"
STOP = "twins:stop"
ERASE = "twins:erase"

SCOPES = {
    DECIDE: "ask the gate about any twin",
    WATCH: "list across owners",
    PROMPT: "read the prompt of any twin that the gate allows",
    READ: "as the only scope of these: read, and nothing else",
    STOP: "say no in somebody's name, never yes",
    ERASE: "erase an organisation",
}
"""Each scope with its meaning."""
