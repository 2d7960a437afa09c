"""Training: objectives, recipes, the loop that fits a network, the teacher with its cached outputs, accuracy."""
