"""The two engines of the matching."""
