"""What is at a point."""
