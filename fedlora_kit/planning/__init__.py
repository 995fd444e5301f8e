"""What runs cost before they are trained: amounts, operations, memory, time."""
