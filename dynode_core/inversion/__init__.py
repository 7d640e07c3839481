"""From aligned crops to W+ codes."""
