"""Where to look along a ray."""
