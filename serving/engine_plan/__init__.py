"""What an engine gets, decided before anything starts: arguments, layout, environment. Pure."""
