"""The catalogue of models that can be hosted: entries, their licences, and the GPUs they fit on."""
