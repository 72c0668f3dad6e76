"""Walls: uploads are read and networks are run in a child process that can do little else."""
