"""What to say where a network has no feature maps that an objective could look at."""

from __future__ import annotations

INSTEAD = "use the objective 'kd', 'logit_mse' or 'ce', which look at no features"
"""What to do where there are no feature maps."""
