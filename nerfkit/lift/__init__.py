"""One picture to an object that can be looked at from all sides."""
