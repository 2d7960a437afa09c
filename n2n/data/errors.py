"""The one error of this room."""


class DataError(ValueError):
    """Data are missing, damaged or inconsistent; the message names the file, what was expected and what was found."""
