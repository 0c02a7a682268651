"""What is in an initrd image: what it was made from, whether that changed since, and what it lacks."""
