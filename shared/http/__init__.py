"""HTTP: routes, problems, conditional and repeatable requests, paging, documentation pages, middleware.

May use the other parts of `shared`, and a store only through the request's context.
"""
