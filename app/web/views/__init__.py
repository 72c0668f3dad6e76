"""View models: rows of the store as the JSON of the contract."""
