"""Tables, figures, comparisons, and the page that shows them."""
