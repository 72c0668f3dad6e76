"""Networks by name, from libraries that the operator installed: timm, transformers, entry points.

Everything in here is imported only when an upload names an architecture.
"""
