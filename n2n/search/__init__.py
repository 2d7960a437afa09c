"""The search room: the two-stage loop, what it remembers, and the students that it hands over."""
