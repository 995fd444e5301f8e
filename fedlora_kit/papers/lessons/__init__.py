"""What the lessons in notebooks/lessons measure: one module a lesson, over one small setting."""
