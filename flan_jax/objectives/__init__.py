"""What is minimised: pure functions that return a sum and a weight."""
