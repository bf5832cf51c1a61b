"""Reports of a run: an HTML page and a table for the terminal."""
