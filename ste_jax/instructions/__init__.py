"""Filtering, labelling and sampling of instructions."""
