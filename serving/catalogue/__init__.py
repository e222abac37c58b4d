"""What can be hosted: model entries, their licences, and the GPUs they fit on."""
