"""The schema of both stores, and the command that brings a deployment to it."""
