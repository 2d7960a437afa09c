"""Reading a user's network: its layers, its channel groups, and edits on a copy of it."""
