"""What trains the runs of items: this machine's processes, one share of them, or a Ray cluster."""
