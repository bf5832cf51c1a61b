"""What a run shows of itself: a page for people, a table for the terminal."""
