"""The product: one folder for each resource, with the name of its URL segment. May use `shared`."""

VERSION = "0.1.0"
