"""What `scripts/bench` measures: a module for each group of measurements, and what they share."""
