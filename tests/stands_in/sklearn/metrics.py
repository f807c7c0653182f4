def __getattr__(name: str) -> None:
    """Any metric; importing it is enough."""
