"""Pictures: clips, charts and reconstructions."""
