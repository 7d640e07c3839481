"""Readers of generator files, none of which runs code from the file."""
