"""What a network is made of and how it may change."""

from search_spaces.layer_removal import layer_removal
from search_spaces.layer_shrinkage import layer_shrinkage
from search_spaces.teacher.inherit import weight_gradients

__all__ = ["layer_removal", "layer_shrinkage", "weight_gradients"]
