"""Helpers of the tests: stores, the app as a process, requests that many tests make."""
