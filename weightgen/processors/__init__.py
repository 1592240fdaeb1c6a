"""What reads networks and fields, and says something about them."""
