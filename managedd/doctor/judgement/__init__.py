"""What the checks saw, judged: pure functions from what was seen to findings."""
