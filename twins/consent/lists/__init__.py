"""`/consents`, `/me/consents` and a twin's consents: lists, each page of which looks at a bounded number."""
