"""Recipes that misbehave, and honest ones: what the tests of the walls run behind them."""
