"""The parts of a configuration file, one module for each; `serving.settings` puts them together."""
