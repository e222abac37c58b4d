"""The commands of `comptoir load`, and how a run looks on a terminal."""
