"""What a network is made of and how it may change."""
