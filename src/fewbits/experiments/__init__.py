"""Experiments: what each run computes, and which runs each profile has."""
