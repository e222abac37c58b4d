"""Checks of whole stacks and of the tools themselves; each is a command, and takes minutes."""
