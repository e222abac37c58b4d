"""The requests and their times: scenarios, arrivals, traces, prompts and bodies; drawn before a run."""
