"""The application in processes of its own, load that never gives up, and the audit that ends each fault.

A test is one `scenario(…)` block: it starts the application, lets the test hurt whatever it wants,
and then audits: what was acknowledged is what is stored, over HTTP and by SQL; every ledger verifies;
every connection is given back; nobody was answered 500; no process logged an error.
"""
