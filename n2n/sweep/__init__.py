"""Many searches as one: their settings, Ray Tune that runs them, and the tables over all of them."""
