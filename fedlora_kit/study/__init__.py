"""What any paper's item is made of: grids, choice, pairing, statistics, claims, reported numbers."""
