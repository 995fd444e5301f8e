"""The three papers as data: their items, settings, reported numbers and claims."""
