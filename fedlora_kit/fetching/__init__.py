"""What `fedlora fetch` brings from the Hub into a mirror."""
