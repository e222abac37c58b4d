"""The commands of `comptoir load`, and a run's view on a terminal."""
