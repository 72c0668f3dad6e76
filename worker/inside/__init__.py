"""What runs behind the walls: one recipe a module, each with `run(job) -> dict`."""
