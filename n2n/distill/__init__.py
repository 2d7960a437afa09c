"""The distill room."""
