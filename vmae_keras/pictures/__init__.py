"""Pictures of clips, charts and reconstructions."""
