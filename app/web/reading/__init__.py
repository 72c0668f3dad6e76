"""From a session to JSON: the queries of the web, one module a noun. All of them only read."""
