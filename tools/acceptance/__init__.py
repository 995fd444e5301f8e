"""What `tools/gpu_acceptance.py` checks: one kind of question a file."""
