"""The plan of an engine, decided before anything starts: arguments, layout, environment. Pure."""
