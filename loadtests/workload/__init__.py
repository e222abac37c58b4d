"""What is sent, and when: scenarios, arrivals, traces, prompts and bodies; drawn before a run."""
