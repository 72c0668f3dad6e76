"""Children that read uploads and may be an upload's puppets: nothing false is stored.

Each test has a child that says the right thing, which is stored, and the same child with one thing
wrong, of which nothing is.
"""
