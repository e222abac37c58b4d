"""`comptoir chat`: a conversation with a model of any endpoint, in the terminal."""
